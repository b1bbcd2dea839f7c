package config

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// comments stand above the fields of a document that Marshal writes.
var comments = map[string]string{
	"hostname":          "RFC 1123 host name, up to 63 bytes.",
	"network":           "The host's own network.",
	"network.interface": "auto, an interface's name or its MAC address.",
	"api":               "The management port and the host's TLS identity, issued by the operator's CA.",
	"disks":             "Where data goes: the first entry that matches a disk is used. Each has one of\nserial, path, model, any: true; with erase: true a disk that holds something\nelse is formatted.",
	"guestNetworks":     "Networks of guests behind the host's address (IPv4, 8 to 29 bits); with mtu: 1280\nto 9000, packets of another size than 1500.",
	"ntp":               "Where the time comes from.",
	"guestCPUs":         "Processors of guests for each CPU that they share, 1 to 128; with reserved: [0, 1]\nCPUs that the control domain keeps from guests.",
	"security":          "Checks of the host (ashlarctl host check) that must pass, or it starts no guests.",
}

// Marshal writes the document as YAML with comments, in a fixed order. What it
// writes reads back as the same document; one that Parse would refuse is an
// error.
func (d *Document) Marshal() ([]byte, error) {
	var root yaml.Node
	if err := root.Encode(d); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	annotate(&root, "")
	var b bytes.Buffer
	b.WriteString("# Configuration of an Ashlar host. The private key below is a secret.\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&root); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	if _, err := Parse(b.Bytes()); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return b.Bytes(), nil
}

func annotate(n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		at := n.Content[i].Value
		if path != "" {
			at = path + "." + at
		}
		n.Content[i].HeadComment = comments[at]
		annotate(n.Content[i+1], at)
	}
}
