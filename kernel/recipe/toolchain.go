package recipe

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// programs are what the kernel's build calls, each with the Debian package it comes in.
var programs = []struct{ name, pkg string }{
	{"make", "make"},
	{"gcc", "gcc"},
	{"ld", "binutils"},
	{"flex", "flex"},
	{"bison", "bison"},
	{"bc", "bc"},
	{"perl", "perl"},
	{"tar", "tar"},
	{"xz", "xz-utils"},
	{"zstd", "zstd"},
}

// Toolchain is the versions of the programs whose output ends up in the kernel, one per line.
type Toolchain string

// FindToolchain asks compiler, linker and compressor for their versions. Its error names every Debian package that is
// missing for a build.
func FindToolchain(ctx context.Context) (Toolchain, error) {
	if missing := missing(ctx); len(missing) > 0 {
		return "", fmt.Errorf("tools for building a kernel are missing: apt install %s", strings.Join(missing, " "))
	}
	var versions []string
	for _, name := range []string{"gcc", "ld", "zstd"} {
		out, err := exec.CommandContext(ctx, name, "--version").Output()
		if err != nil {
			return "", fmt.Errorf("%s --version: %w", name, err)
		}
		first, _, _ := bytes.Cut(out, []byte("\n"))
		versions = append(versions, string(bytes.TrimSpace(first)))
	}
	return Toolchain(strings.Join(versions, "\n")), nil
}

func missing(ctx context.Context) []string {
	var pkgs []string
	for _, p := range programs {
		if _, err := exec.LookPath(p.name); err != nil {
			pkgs = append(pkgs, p.pkg)
		}
	}
	if _, err := exec.LookPath("gcc"); err == nil && !hasHeader(ctx, "gelf.h") {
		pkgs = append(pkgs, "libelf-dev") // objtool reads object files
	}
	return pkgs
}

func hasHeader(ctx context.Context, header string) bool {
	cmd := exec.CommandContext(ctx, "gcc", "-fsyntax-only", "-x", "c", "-")
	cmd.Stdin = strings.NewReader("#include <" + header + ">\n")
	return cmd.Run() == nil
}
