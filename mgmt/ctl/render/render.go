// Package render writes resources of ashlar.v1 as tables for people, and as
// JSON (the protobuf JSON mapping) or YAML (the same) for programs. Its JSON
// is the same bytes for the same resource, which protojson alone does not
// promise.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// A Format is how output is written.
type Format string

// The formats.
const (
	Table Format = "table"
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Formats are all, in the order in which help shows them.
var Formats = []string{string(Table), string(JSON), string(YAML)}

// Set makes Format a flag value.
func (f *Format) Set(s string) error {
	switch v := Format(s); v {
	case Table, JSON, YAML:
		*f = v
		return nil
	}
	return fmt.Errorf("want one of %s", strings.Join(Formats, ", "))
}

// String is the format's name.
func (f *Format) String() string { return string(*f) }

// Type names the value in help.
func (f *Format) Type() string { return strings.Join(Formats, "|") }

// Rows are a table. Without a header it is a list of fields and values.
type Rows struct {
	Header []string
	Lines  [][]string
}

// Add appends a line.
func (r *Rows) Add(cells ...string) { r.Lines = append(r.Lines, cells) }

// Write aligns the columns. What a terminal would take for control characters
// is shown as `?`.
func (r *Rows) Write(w io.Writer) error {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	lines := r.Lines
	if r.Header != nil {
		lines = append([][]string{r.Header}, lines...)
	}
	for _, l := range lines {
		cells := make([]string, len(l))
		for i, c := range l {
			cells[i] = strings.Map(printable, c)
		}
		fmt.Fprintln(tw, strings.Join(cells, "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// printable replaces control characters.
func printable(r rune) rune {
	if r < ' ' || (r >= 0x7f && r < 0xa0) {
		return '?'
	}
	return r
}

// Message writes one resource.
func Message(w io.Writer, f Format, m proto.Message, table func() *Rows) error {
	if f == Table || f == "" {
		return table().Write(w)
	}
	b, err := encode(m)
	if err != nil {
		return err
	}
	return structured(w, f, b)
}

// List writes resources as one array.
func List[M proto.Message](w io.Writer, f Format, ms []M, table func() *Rows) error {
	if f == Table || f == "" {
		return table().Write(w)
	}
	parts := make([][]byte, len(ms))
	for i, m := range ms {
		b, err := encode(m)
		if err != nil {
			return err
		}
		parts[i] = b
	}
	b := append([]byte("["), bytes.Join(parts, []byte(","))...)
	return structured(w, f, append(b, ']'))
}

// Line writes one resource as a line of JSON, or as a YAML document.
func Line(w io.Writer, f Format, m proto.Message) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	if f == YAML {
		if _, err := io.WriteString(w, "---\n"); err != nil {
			return err
		}
		return structured(w, f, b)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// Value writes any value, by its json tags.
func Value(w io.Writer, f Format, v any, table func() *Rows) error {
	if f == Table || f == "" {
		return table().Write(w)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return structured(w, f, b)
}

// encode is compact JSON: protojson varies its spaces on purpose.
func encode(m proto.Message) ([]byte, error) {
	b, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// structured writes JSON for reading, or as YAML.
func structured(w io.Writer, f Format, b []byte) error {
	if f == YAML {
		return asYAML(w, b)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err := w.Write(out.Bytes())
	return err
}

// asYAML keeps the order of the fields, which JSON read into maps would lose.
func asYAML(w io.Writer, b []byte) error {
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return err
	}
	plain(&n)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return err
	}
	return enc.Close()
}

// word is a string that is one in every version of YAML without quotes, unless
// it is one of wordsNot.
var (
	word     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9/_.-]*$`)
	wordsNot = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null)$`)
)

// plain takes JSON's braces away, and the quotes of words. Empty lists and
// objects stay as they are.
func plain(n *yaml.Node) {
	quoted := n.Kind == yaml.ScalarNode && n.Tag == "!!str" && (!word.MatchString(n.Value) || wordsNot.MatchString(n.Value))
	if !quoted && (n.Kind == yaml.ScalarNode || len(n.Content) > 0) {
		n.Style = 0
	}
	for _, c := range n.Content {
		plain(c)
	}
}
