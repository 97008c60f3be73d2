// Command network-policy enforces a cluster's NetworkPolicies for the pods of one node, with nftables.
//
// It needs pods whose traffic is routed, not bridged: then all of it passes the forward hook. It watches pods,
// namespaces and policies, and replaces its own table, in one transaction, whenever what follows from them has changed.
// The rules stay when it ends: what it last knew is enforced until it is back.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// Changes that come together make one transaction.
	settle = 100 * time.Millisecond
	// The table is written anew that often, whoever removed it.
	renew = time.Minute
)

type agent struct {
	node       string
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	changed    chan struct{}
}

func main() {
	log.SetFlags(0)
	node := flag.String("node", os.Getenv("NODE_NAME"), "name of this node")
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server; by default, as a pod does")
	flag.Parse()
	if *node == "" {
		log.Fatal("network-policy: --node or NODE_NAME must name this node")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *node, *kubeconfig); err != nil {
		log.Fatalf("network-policy: %v", err)
	}
}

func run(ctx context.Context, node, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trimmed))
	core, networking := factory.Core().V1(), factory.Networking().V1()
	a := agent{
		node:       node,
		pods:       core.Pods().Lister(),
		namespaces: core.Namespaces().Lister(),
		policies:   networking.NetworkPolicies().Lister(),
		changed:    make(chan struct{}, 1),
	}
	for _, informer := range []cache.SharedIndexInformer{
		core.Pods().Informer(), core.Namespaces().Informer(), networking.NetworkPolicies().Informer(),
	} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { a.notify() },
			UpdateFunc: func(any, any) { a.notify() },
			DeleteFunc: func(any) { a.notify() },
		}); err != nil {
			return err
		}
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("stopped before all of %v were known", kind)
		}
	}
	a.enforce(ctx)
	return nil
}

// trimmed drops what rules do not depend on: a node holds every pod of the cluster in memory.
func trimmed(object any) (any, error) {
	if pod, is := object.(*corev1.Pod); is {
		spec := corev1.PodSpec{NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork}
		for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			spec.Containers = append(spec.Containers, corev1.Container{Ports: container.Ports})
		}
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, Labels: pod.Labels,
				ResourceVersion: pod.ResourceVersion,
			},
			Spec:   spec,
			Status: corev1.PodStatus{Phase: pod.Status.Phase, PodIPs: pod.Status.PodIPs},
		}, nil
	}
	return object, nil
}

func (a *agent) notify() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// enforce keeps the table up to date until ctx ends.
func (a *agent) enforce(ctx context.Context) {
	ticker := time.NewTicker(renew)
	defer ticker.Stop()
	var applied string
	for {
		state, err := a.state()
		if err == nil {
			if wanted := table(a.node, state); wanted != applied {
				began := time.Now()
				if err = apply(ctx, wanted); err == nil {
					applied = wanted
					log.Printf("%d policies, %d pods: enforced in %v", len(state.policies), len(state.pods), time.Since(began))
				}
			}
		}
		if err != nil {
			log.Printf("the rules stay as they were: %v", err)
			applied = ""
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			applied = ""
		case <-a.changed:
			time.Sleep(settle)
		}
	}
}

func (a *agent) state() (state, error) {
	found := state{namespaces: map[string]labels.Set{}}
	namespaces, err := a.namespaces.List(labels.Everything())
	if err != nil {
		return found, err
	}
	for _, namespace := range namespaces {
		found.namespaces[namespace.Name] = namespace.Labels
	}
	if found.pods, err = a.pods.List(labels.Everything()); err != nil {
		return found, err
	}
	found.policies, err = a.policies.List(labels.Everything())
	return found, err
}

func apply(ctx context.Context, script string) error {
	command := exec.CommandContext(ctx, "nft", "-f", "-")
	command.Stdin = strings.NewReader(script)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, output)
	}
	return nil
}

type state struct {
	pods       []*corev1.Pod
	namespaces map[string]labels.Set
	policies   []*networkingv1.NetworkPolicy
}
