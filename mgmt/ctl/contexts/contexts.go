// Package contexts keeps what ashlarctl knows about hosts: one YAML file,
// config.yaml, with a named context per host (address, authority, client
// certificate and key) and the name of the one in use. It lies in
// $ASHLAR_CONFIG_DIR, else in $XDG_CONFIG_HOME/ashlar, else in ~/.config/ashlar
// (XDG Base Directory Specification 0.8).
//
// Files are readable by their owner alone, replaced in one step, and changed
// under a lock, so that several commands at once lose nothing.
package contexts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// FileName is the file with the contexts, in the directory.
const FileName = "config.yaml"

// lockName is the file that changers lock.
const lockName = ".lock"

// maxFile is the largest file read, in bytes.
const maxFile = 4 << 20

// Errors that callers test for.
var (
	ErrNotFound  = errors.New("no such context")
	ErrExists    = errors.New("there is such a context already")
	ErrNoCurrent = errors.New("no context is in use")
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// A Context says how to reach a host and as whom.
type Context struct {
	Name string `yaml:"name" json:"name"`
	// Address is HOST:PORT.
	Address string `yaml:"address" json:"address"`
	// ServerName is the name in the host's certificate; empty where it is the
	// host part of Address.
	ServerName string `yaml:"serverName,omitempty" json:"serverName,omitempty"`
	// CA, Certificate and Key are PEM, or paths of PEM files relative to the
	// directory.
	CA          string `yaml:"ca" json:"ca"`
	Certificate string `yaml:"certificate" json:"certificate"`
	Key         string `yaml:"key" json:"key"`
}

// File is the content of config.yaml.
type File struct {
	Current  string    `yaml:"current,omitempty"`
	Contexts []Context `yaml:"contexts"`
}

// A Dir is the directory that contexts lie in.
type Dir string

// DefaultDir finds the directory by the environment.
func DefaultDir(getenv func(string) string) (Dir, error) {
	if d := getenv("ASHLAR_CONFIG_DIR"); d != "" {
		return Dir(d), nil
	}
	if d := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(d) {
		return Dir(filepath.Join(d, "ashlar")), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("find the configuration directory: neither ASHLAR_CONFIG_DIR nor XDG_CONFIG_HOME nor HOME is set")
	}
	return Dir(filepath.Join(home, ".config", "ashlar")), nil
}

// Path joins elements to the directory.
func (d Dir) Path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// Load reads the contexts. Where there is no file there are none.
func (d Dir) Load() (*File, error) {
	name := d.Path(FileName)
	b, err := readSmall(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &File{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read contexts: %w", err)
	}
	f, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("read contexts: %s: %w", name, err)
	}
	return f, nil
}

// Parse reads the content of config.yaml.
func Parse(b []byte) (*File, error) {
	f := &File{}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	seen := map[string]bool{}
	for _, c := range f.Contexts {
		if err := CheckName(c.Name); err != nil {
			return nil, err
		}
		if seen[c.Name] {
			return nil, fmt.Errorf("context %s stands there twice", c.Name)
		}
		seen[c.Name] = true
	}
	return f, nil
}

// CheckName tells whether name can be a context's: letters, digits, `.`, `_`
// and `-`, 1 to 63, a letter or digit first.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("context name %q: want 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first", name)
	}
	return nil
}

// Lookup returns the context of that name, or the one in use where name is
// empty. ErrNotFound or ErrNoCurrent where there is none.
func (f *File) Lookup(name string) (*Context, error) {
	if name == "" {
		name = f.Current
	}
	if name == "" {
		return nil, fmt.Errorf("%w: name one with --context, or make one with `ashlarctl config init`", ErrNoCurrent)
	}
	i := f.index(name)
	if i < 0 {
		return nil, fmt.Errorf("context %s: %w; see `ashlarctl context list`", name, ErrNotFound)
	}
	return &f.Contexts[i], nil
}

func (f *File) index(name string) int {
	return slices.IndexFunc(f.Contexts, func(c Context) bool { return c.Name == name })
}

// Put adds a context, or replaces the one of its name.
func (f *File) Put(c Context) {
	if i := f.index(c.Name); i >= 0 {
		f.Contexts[i] = c
		return
	}
	f.Contexts = append(f.Contexts, c)
	slices.SortFunc(f.Contexts, func(a, b Context) int { return strings.Compare(a.Name, b.Name) })
}

// Delete removes a context; where it was in use none is afterwards.
func (f *File) Delete(name string) error {
	i := f.index(name)
	if i < 0 {
		return fmt.Errorf("context %s: %w", name, ErrNotFound)
	}
	f.Contexts = slices.Delete(f.Contexts, i, i+1)
	if f.Current == name {
		f.Current = ""
	}
	return nil
}

// Update changes the contexts under the lock: change gets them as they are and
// what it leaves is written, unless it returns an error.
func (d Dir) Update(change func(*File) error) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	unlock, err := lock(d.Path(lockName))
	if err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	defer unlock()
	f, err := d.Load()
	if err != nil {
		return err
	}
	if err := change(f); err != nil {
		return err
	}
	b, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	return WriteFile(d.Path(FileName), b)
}

// Material is what TLS needs, as PEM.
type Material struct {
	CA, Certificate, Key []byte
}

// Material reads the files that the context names.
func (d Dir) Material(c *Context) (Material, error) {
	var m Material
	for _, f := range []struct {
		what, from string
		to         *[]byte
	}{{"CA", c.CA, &m.CA}, {"certificate", c.Certificate, &m.Certificate}, {"key", c.Key, &m.Key}} {
		b, err := d.text(f.from)
		if err != nil {
			return Material{}, fmt.Errorf("context %s: read %s: %w", c.Name, f.what, err)
		}
		*f.to = b
	}
	return m, nil
}

// text returns s where it is PEM, and the file it names otherwise.
func (d Dir) text(s string) ([]byte, error) {
	switch {
	case strings.Contains(s, "-----BEGIN "):
		return []byte(s), nil
	case s == "":
		return nil, errors.New("nothing is named; see `ashlarctl context show`")
	case filepath.IsAbs(s):
		return readSmall(s)
	}
	return readSmall(d.Path(s))
}

// readSmall reads a file of at most maxFile bytes.
func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", name, maxFile)
	}
	return b, err
}
