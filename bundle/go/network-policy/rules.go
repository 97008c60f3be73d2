package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// direction is one side of a connection, seen from the pod whose policies are asked.
type direction struct {
	policyType networkingv1.PolicyType
	own, peer  string
}

var (
	ingress = direction{networkingv1.PolicyTypeIngress, "ip daddr", "ip saddr"}
	egress  = direction{networkingv1.PolicyTypeEgress, "ip saddr", "ip daddr"}
)

// rule is what a policy allows in one direction.
type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// table is nft's script for what state asks of node. Only connections' first packets are judged: those a pod of the node
// opens by its egress policies, those to a pod of the node by its ingress policies. The node itself always reaches its
// pods and they it, as the kubelet's probes must; neither passes the forward hook.
func table(node string, s state) string {
	var chains, maps strings.Builder
	for _, d := range []direction{egress, ingress} {
		var jumps []string
		for _, pod := range s.pods {
			address, has := addressOf(pod)
			if !has || pod.Spec.NodeName != node {
				continue
			}
			if lines, isolated := s.judge(pod, d); isolated {
				name := fmt.Sprintf("%s-%s", strings.ToLower(string(d.policyType)), address)
				lines = append([]string{fmt.Sprintf("%s %s return", d.peer, address)}, append(lines, "drop")...)
				fmt.Fprintf(&chains, "  chain %s {\n    %s\n  }\n", name, strings.Join(lines, "\n    "))
				jumps = append(jumps, fmt.Sprintf("%s : jump %s", address, name))
			}
		}
		if len(jumps) > 0 {
			slices.Sort(jumps)
			fmt.Fprintf(&maps, "    %s vmap { %s }\n", d.own, strings.Join(jumps, ", "))
		}
	}
	return "table inet network-policy\ndelete table inet network-policy\ntable inet network-policy {\n" + chains.String() +
		"  chain forward {\n    type filter hook forward priority filter;\n    ct state established,related accept\n" +
		maps.String() + "  }\n}\n"
}

// judge gives the rules that let a packet return, of all policies that select pod; none selects it: not isolated.
func (s state) judge(pod *corev1.Pod, d direction) (lines []string, isolated bool) {
	policies := slices.Clone(s.policies)
	slices.SortFunc(policies, func(a, b *networkingv1.NetworkPolicy) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	for _, policy := range policies {
		if policy.Namespace != pod.Namespace || !matches(&policy.Spec.PodSelector, pod.Labels) {
			continue
		}
		if !slices.Contains(typesOf(policy), d.policyType) {
			continue
		}
		isolated = true
		for _, r := range rulesOf(policy, d) {
			for _, line := range s.allow(policy.Namespace, pod, r, d) {
				lines = append(lines, strings.Join(append(line, "return"), " "))
			}
		}
	}
	return lines, isolated
}

// typesOf gives the directions that a policy is about: those it names, else ingress, and egress where it has such rules.
func typesOf(policy *networkingv1.NetworkPolicy) []networkingv1.PolicyType {
	types := policy.Spec.PolicyTypes
	if len(types) == 0 {
		types = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(policy.Spec.Egress) > 0 {
			types = append(types, networkingv1.PolicyTypeEgress)
		}
	}
	return types
}

func rulesOf(policy *networkingv1.NetworkPolicy, d direction) (rules []rule) {
	if d == ingress {
		for _, r := range policy.Spec.Ingress {
			rules = append(rules, rule{r.From, r.Ports})
		}
		return rules
	}
	for _, r := range policy.Spec.Egress {
		rules = append(rules, rule{r.To, r.Ports})
	}
	return rules
}

// allow gives the matches of one rule: each of its peers with each of its ports.
func (s state) allow(namespace string, pod *corev1.Pod, r rule, d direction) (lines [][]string) {
	peers, blocks := s.peersOf(namespace, r.peers)
	everyone := len(r.peers) == 0
	if everyone {
		blocks = []string{""}
		peers = s.pods
	}
	if len(r.ports) == 0 {
		r.ports = []networkingv1.NetworkPolicyPort{{}}
	}
	for _, port := range r.ports {
		if port.Port != nil && port.Port.Type == intstr.String && d == egress {
			lines = append(lines, named(port, peers)...)
			continue
		}
		for _, match := range portsOf(port, pod) {
			if !everyone {
				if addresses := addressesOf(peers); len(addresses) > 0 {
					lines = append(lines, words(fmt.Sprintf("%s { %s }", d.peer, strings.Join(addresses, ", ")), match))
				}
			}
			for _, block := range blocks {
				lines = append(lines, words(strings.ReplaceAll(block, "@", d.peer), match))
			}
		}
	}
	return lines
}

// peersOf gives the pods among peers, and the matches of the blocks of addresses, with @ for the peer's address.
func (s state) peersOf(namespace string, peers []networkingv1.NetworkPolicyPeer) (pods []*corev1.Pod, blocks []string) {
	for _, peer := range peers {
		if peer.IPBlock != nil {
			if prefix, err := netip.ParsePrefix(peer.IPBlock.CIDR); err == nil && prefix.Addr().Is4() {
				block := "@ " + prefix.Masked().String()
				if len(peer.IPBlock.Except) > 0 {
					block += fmt.Sprintf(" @ != { %s }", strings.Join(peer.IPBlock.Except, ", "))
				}
				blocks = append(blocks, block)
			}
			continue
		}
		for _, pod := range s.pods {
			there := pod.Namespace == namespace
			if peer.NamespaceSelector != nil {
				there = matches(peer.NamespaceSelector, s.namespaces[pod.Namespace])
			}
			if there && (peer.PodSelector == nil || matches(peer.PodSelector, pod.Labels)) {
				pods = append(pods, pod)
			}
		}
	}
	return pods, blocks
}

// portsOf gives the matches of a port: one, or as many as a container of pod has ports of that name.
func portsOf(port networkingv1.NetworkPolicyPort, pod *corev1.Pod) []string {
	protocol := protocolOf(port)
	switch {
	case port.Protocol == nil && port.Port == nil:
		return []string{""}
	case port.Port == nil:
		return []string{"meta l4proto " + protocol}
	case port.Port.Type == intstr.String:
		var found []string
		for _, number := range numbers(pod, port) {
			found = append(found, fmt.Sprintf("%s dport %d", protocol, number))
		}
		return found
	case port.EndPort != nil:
		return []string{fmt.Sprintf("%s dport %d-%d", protocol, port.Port.IntVal, *port.EndPort)}
	default:
		return []string{fmt.Sprintf("%s dport %d", protocol, port.Port.IntVal)}
	}
}

// named gives the match of a named port of peers: each has its own number for it.
func named(port networkingv1.NetworkPolicyPort, peers []*corev1.Pod) [][]string {
	var elements []string
	for _, peer := range peers {
		if address, has := addressOf(peer); has {
			for _, number := range numbers(peer, port) {
				elements = append(elements, fmt.Sprintf("%s . %d", address, number))
			}
		}
	}
	if len(elements) == 0 {
		return nil
	}
	slices.Sort(elements)
	set := strings.Join(slices.Compact(elements), ", ")
	return [][]string{{fmt.Sprintf("ip daddr . %s dport { %s }", protocolOf(port), set)}}
}

func numbers(pod *corev1.Pod, port networkingv1.NetworkPolicyPort) (found []int32) {
	for _, container := range pod.Spec.Containers {
		for _, has := range container.Ports {
			protocol := has.Protocol
			if protocol == "" {
				protocol = corev1.ProtocolTCP
			}
			if has.Name == port.Port.StrVal && strings.EqualFold(string(protocol), protocolOf(port)) {
				found = append(found, has.ContainerPort)
			}
		}
	}
	return found
}

func protocolOf(port networkingv1.NetworkPolicyPort) string {
	if port.Protocol == nil {
		return "tcp"
	}
	return strings.ToLower(string(*port.Protocol))
}

func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(set)
}

func addressesOf(pods []*corev1.Pod) (addresses []string) {
	for _, pod := range pods {
		if address, has := addressOf(pod); has {
			addresses = append(addresses, address)
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses)
}

// addressOf gives a pod's own IPv4 address; one on its node's network, or that has ended, has none.
func addressOf(pod *corev1.Pod) (string, bool) {
	if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return "", false
	}
	for _, one := range pod.Status.PodIPs {
		if address, err := netip.ParseAddr(one.IP); err == nil && address.Is4() {
			return address.String(), true
		}
	}
	return "", false
}

func words(all ...string) []string {
	return slices.DeleteFunc(all, func(word string) bool { return word == "" })
}
