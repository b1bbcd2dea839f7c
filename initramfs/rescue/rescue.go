// Package rescue says which commands of u-root a person finds who starts a host
// with ashlar.rescue on its kernel command line. Nothing runs them otherwise.
package rescue

import (
	_ "embed"
	"fmt"
	"go/parser"
	"go/token"
	"strconv"
)

//go:embed commands.go
var commands string

// Source is what the list of commands is read from; a build that depends on
// the list depends on this.
func Source() string { return commands }

// Commands returns the import paths of the commands. They are the imports of
// commands.go, which no program is built with: it also keeps the commands
// within reach of go.mod.
func Commands() ([]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), "commands.go", commands, parser.ImportsOnly)
	if err != nil {
		return nil, fmt.Errorf("list rescue commands: %w", err)
	}
	var list []string
	for _, i := range f.Imports {
		path, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("list rescue commands: %w", err)
		}
		list = append(list, path)
	}
	return list, nil
}
