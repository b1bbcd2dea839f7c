package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxErrors keeps the report of a file that is not a configuration readable.
const maxErrors = 100

// A reader walks the document's nodes and collects what is wrong with them.
type reader struct {
	errs Errors
}

func (r *reader) fail(n *yaml.Node, path, format string, a ...any) {
	if len(r.errs) >= maxErrors {
		return
	}
	e := FieldError{Path: path, Problem: fmt.Sprintf(format, a...)}
	if n != nil {
		e.Line, e.Column = n.Line, n.Column
	}
	r.errs = append(r.errs, e)
}

// plain reports whether n is without YAML's features that this format excludes.
func (r *reader) plain(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.fail(n, path, "is an alias (*%s): write the value out", n.Value)
	case n.Anchor != "":
		r.fail(n, path, "has an anchor (&%s): remove it", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		r.fail(n, path, "has a tag (%s): remove it", n.Tag)
	default:
		return true
	}
	return false
}

// An object is a mapping whose fields are known.
type object struct {
	r      *reader
	node   *yaml.Node
	path   string
	fields map[string]*yaml.Node
}

// object reads a mapping that may have the named fields. Its fields are empty
// when n is something else.
func (r *reader) object(n *yaml.Node, path string, names ...string) object {
	o := object{r: r, node: n, path: path, fields: map[string]*yaml.Node{}}
	if !r.plain(n, path) {
		return o
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n, path, "is %s, want fields: %s", kind(n), strings.Join(names, ", "))
		return o
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := key.Value
		switch {
		case key.Kind != yaml.ScalarNode || !r.plain(key, path):
			r.fail(key, path, "has %s as the name of a field", kind(key))
		case !slices.Contains(names, name):
			r.fail(key, o.at(clip(name)), "no such field; there are: %s", strings.Join(names, ", "))
		case o.fields[name] != nil:
			r.fail(key, o.at(name), "is given twice, first in line %d", o.fields[name].Line)
		default:
			o.fields[name] = value
		}
	}
	return o
}

// child is the value of a field of the mapping n that has been read already.
func child(n *yaml.Node, name string) *yaml.Node {
	for i := 0; n != nil && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func (o object) at(name string) string {
	if o.path == "" {
		return name
	}
	return o.path + "." + name
}

// require returns the named field, and reports where it is missing.
func (o object) require(name, hint string) *yaml.Node {
	n := o.fields[name]
	if n == nil && o.node.Kind == yaml.MappingNode {
		o.r.fail(o.node, o.at(name), "is missing: %s", hint)
	}
	return n
}

// text reads a string; check, if not nil, says what is wrong with it. A number
// is taken as it is written, so that serial numbers need no quotes.
func (r *reader) text(n *yaml.Node, path string, check func(string) error) string {
	if n == nil || !r.plain(n, path) {
		return ""
	}
	if n.Kind != yaml.ScalarNode || !slices.Contains([]string{"!!str", "!!int", "!!float", "!!timestamp"}, n.ShortTag()) {
		r.fail(n, path, "is %s, want text%s", kind(n), quoteHint(n))
		return ""
	}
	if check != nil {
		if err := check(n.Value); err != nil {
			r.fail(n, path, "%v", err)
			return ""
		}
	}
	return n.Value
}

func (o object) text(name, preset string, check func(string) error) string {
	if o.fields[name] == nil {
		return preset
	}
	return o.r.text(o.fields[name], o.at(name), check)
}

func (o object) boolean(name string, preset bool) bool {
	n := o.fields[name]
	if n == nil {
		return preset
	}
	if !o.r.plain(n, o.at(name)) {
		return false
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || (n.Value != "true" && n.Value != "false") {
		o.r.fail(n, o.at(name), "is %s, want true or false", kind(n))
		return false
	}
	return n.Value == "true"
}

func (o object) integer(name string, preset, low, high int) int {
	n := o.fields[name]
	if n == nil {
		return preset
	}
	return o.r.integer(n, o.at(name), low, high)
}

func (r *reader) integer(n *yaml.Node, path string, low, high int) int {
	if n == nil || !r.plain(n, path) {
		return 0
	}
	v, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil {
		r.fail(n, path, "is %s, want a whole number", kind(n))
		return 0
	}
	if v < int64(low) || v > int64(high) || v > math.MaxInt32 {
		r.fail(n, path, "is %d, want %d to %d", v, low, high)
		return 0
	}
	return int(v)
}

// list returns the entries of a list of at most most.
func (r *reader) list(n *yaml.Node, path string, most int) []*yaml.Node {
	if n == nil || !r.plain(n, path) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.fail(n, path, "is %s, want a list", kind(n))
		return nil
	}
	if len(n.Content) > most {
		r.fail(n, path, "has %d entries, want %d at most", len(n.Content), most)
		return nil
	}
	return n.Content
}

// texts reads a list of strings.
func (o object) texts(name string, most int, check func(string) error) []string {
	var out []string
	for i, n := range o.r.list(o.fields[name], o.at(name), most) {
		out = append(out, o.r.text(n, index(o.at(name), i), check))
	}
	return out
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// kind says what a node is, for error messages.
func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a group of fields"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.ShortTag() == "!!null":
		return "empty"
	default:
		return strconv.Quote(clip(n.Value))
	}
}

func quoteHint(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		return fmt.Sprintf(" (in quotes: %q)", n.Value)
	}
	return ""
}

// clip keeps a value short enough for a message.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
