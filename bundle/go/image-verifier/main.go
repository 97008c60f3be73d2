// Command image-verifier tells containerd whether an image may be pulled: whether one of the stack's keys has signed a
// statement of its digest and its bill of materials. containerd runs it before each pull; docs/how-to/images.md has why
// and how. Refusals end with status 1, and their reason is on standard output, from where it gets to the pod's events.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	settingsPath  = "/etc/containerd/image-verifier.json"
	ours          = "localhost/"
	manifestType  = "application/vnd.oci.image.manifest.v1+json"
	envelopeType  = "application/vnd.dsse.envelope.v1+json"
	materialsType = "application/vnd.cyclonedx+json"
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://ml-cluster.dev/bill-of-materials/v1"
	// A manifest or a statement is some kilobytes, the longest bill of materials half a megabyte.
	mostBytes  = 16 << 20
	askTimeout = 5 * time.Second
)

// settings is what the playbooks write.
type settings struct {
	// Public keys: SubjectPublicKeyInfo, in base64.
	Keys []string `json:"keys"`
	// The cluster's registries, which have what is named localhost/.
	Registries []string `json:"registries"`
	// What names of images may begin with that need no signature.
	Unsigned []string `json:"unsigned"`
}

type envelope struct {
	PayloadType string `json:"payloadType"`
	Payload     []byte `json:"payload"`
	Signatures  []struct {
		Sig []byte `json:"sig"`
	} `json:"signatures"`
}

type digests struct {
	SHA256 string `json:"sha256"`
}

type statement struct {
	Type    string `json:"_type"`
	Subject []struct {
		Digest digests `json:"digest"`
	} `json:"subject"`
	PredicateType string  `json:"predicateType"`
	Predicate     digests `json:"predicate"`
}

func main() {
	name := flag.String("name", "", "the image's name")
	digest := flag.String("digest", "", "its digest")
	flag.String("stdin-media-type", "", "what standard input is; not read")
	flag.Parse()
	reason, err := judge(*name, *digest)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(reason)
}

func judge(name, digest string) (string, error) {
	text, err := os.ReadFile(settingsPath)
	if err != nil {
		return "", err
	}
	var set settings
	if err := json.Unmarshal(text, &set); err != nil {
		return "", fmt.Errorf("%s: %w", settingsPath, err)
	}
	for _, prefix := range set.Unsigned {
		if begins(name, prefix) {
			return "needs no signature: " + prefix, nil
		}
	}
	if !strings.HasPrefix(name, ours) {
		return "", errors.New("not an image of the cluster's registry: only those are signed")
	}
	repository := strings.TrimPrefix(name, ours)
	if end := strings.IndexAny(repository, "@:"); end >= 0 {
		repository = repository[:end]
	}
	keys, err := parse(set.Keys)
	if err != nil {
		return "", err
	}
	reasons := make([]string, 0, len(set.Registries))
	for _, registry := range set.Registries {
		if err = verify(registry+"/v2/"+repository, digest, keys); err == nil {
			return "signed", nil
		}
		reasons = append(reasons, fmt.Sprintf("%s: %v", registry, err))
	}
	return "", errors.New(strings.Join(reasons, "; "))
}

// begins tells whether a name is prefix, or prefix and a tag, a digest or a path below it.
func begins(name, prefix string) bool {
	rest, found := strings.CutPrefix(name, prefix)
	return found && prefix != "" && (rest == "" || strings.HasSuffix(prefix, "/") || strings.ContainsAny(rest[:1], "/:@"))
}

func parse(texts []string) ([]ed25519.PublicKey, error) {
	keys := make([]ed25519.PublicKey, 0, len(texts))
	for _, text := range texts {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", text, err)
		}
		key, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", text, err)
		}
		public, is := key.(ed25519.PublicKey)
		if !is {
			return nil, fmt.Errorf("key %s is not of Ed25519", text)
		}
		keys = append(keys, public)
	}
	return keys, nil
}

// verify looks for the statement beside the image: an artifact with the image's digest in its tag.
func verify(place, digest string, keys []ed25519.PublicKey) error {
	text, err := get(place + "/manifests/" + strings.Replace(digest, ":", "-", 1) + ".sig")
	if err != nil {
		return err
	}
	var manifest struct {
		Layers []struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return fmt.Errorf("its signature cannot be read: %w", err)
	}
	layers := map[string]string{}
	for _, layer := range manifest.Layers {
		layers[layer.MediaType] = layer.Digest
	}
	signed, err := get(place + "/blobs/" + layers[envelopeType])
	if err != nil {
		return err
	}
	told, err := open(signed, keys)
	if err != nil {
		return err
	}
	if len(told.Subject) != 1 || "sha256:"+told.Subject[0].Digest.SHA256 != digest {
		return errors.New("its signature is another image's")
	}
	materials, err := get(place + "/blobs/" + layers[materialsType])
	if err != nil {
		return err
	}
	sum := sha256.Sum256(materials)
	if hex.EncodeToString(sum[:]) != told.Predicate.SHA256 {
		return errors.New("its bill of materials is not the one that was signed")
	}
	return nil
}

// open gives the statement in an envelope (DSSE v1), if one of the keys has signed it.
func open(text []byte, keys []ed25519.PublicKey) (statement, error) {
	var signed envelope
	var told statement
	if err := json.Unmarshal(text, &signed); err != nil {
		return told, fmt.Errorf("its signature cannot be read: %w", err)
	}
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(signed.Payload), signed.Payload)
	for _, signature := range signed.Signatures {
		for _, key := range keys {
			if signed.PayloadType == payloadType && ed25519.Verify(key, message, signature.Sig) {
				if err := json.Unmarshal(signed.Payload, &told); err != nil {
					return told, fmt.Errorf("its signed statement cannot be read: %w", err)
				}
				if told.Type != statementType || told.PredicateType != predicateType {
					return told, errors.New("what was signed is no statement about an image")
				}
				return told, nil
			}
		}
	}
	return told, errors.New("its signature is of none of the stack's keys (cluster.imageKeys)")
}

// get reads from a registry.
func get(url string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", manifestType)
	client := http.Client{Timeout: askTimeout}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNotFound {
		return nil, errors.New("it is not signed (lab bundle sign)")
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	return io.ReadAll(io.LimitReader(answer.Body, mostBytes))
}
