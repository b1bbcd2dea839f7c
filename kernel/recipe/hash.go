package recipe

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strings"

	"github.com/ashlar-hv/ashlar/kernel/kconfig"
)

// own is this package: the build script.
//
//go:embed *.go
var own embed.FS

// Input is all that a kernel is made from. Equal inputs give equal bytes.
type Input struct {
	Profile   Profile
	Source    Source
	Options   []kconfig.Option
	Toolchain Toolchain
	Script    fs.FS // the files of the build script; tests among them do not count
}

// NewInput is an input with this package as build script.
func NewInput(p Profile, s Source, options []kconfig.Option, t Toolchain) Input {
	return Input{Profile: p, Source: s, Options: options, Toolchain: t, Script: own}
}

// Hash names the input: 32 hex digits. It counts what is asked for, not the reasons or the place of the sources.
func (in Input) Hash() (string, error) {
	h := sha256.New()
	part := func(name string, content []byte) { fmt.Fprintf(h, "%s %d\n%s\n", name, len(content), content) }
	part("profile", []byte(in.Profile.Name))
	part("source", []byte(in.Source.Digest))
	part("options", kconfig.Format(in.Options))
	part("toolchain", []byte(in.Toolchain))
	files, err := fs.Glob(in.Script, "*.go")
	if err != nil {
		return "", err
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		content, err := fs.ReadFile(in.Script, name)
		if err != nil {
			return "", fmt.Errorf("hash build script: %w", err)
		}
		part(name, content)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}
