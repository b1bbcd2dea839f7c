package efi

import (
	"context"
	_ "embed" // the stub's source goes with the program that builds images
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed stub/stub.c
var stubSource []byte

//go:embed stub/stub.ld
var stubScript []byte

// stubFlags make gcc write code that runs wherever the firmware puts it, in the
// firmware's own environment: no red zone (interrupts use our stack), no vector
// registers, no C library, 16-bit characters.
var stubFlags = []string{
	"-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror",
	"-ffreestanding", "-nostdlib", "-static", "-fpie", "-fvisibility=hidden",
	"-fshort-wchar", "-mno-red-zone", "-mgeneral-regs-only",
	"-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-fno-jump-tables",
	"-Wl,-T,stub.ld", "-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,--oformat=binary",
}

// CompileStub makes the code that starts the kernel from within the image, with
// gcc, or the compiler that the environment variable CC names. The same
// compiler makes the same bytes.
func CompileStub(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "ashlar-stub-")
	if err != nil {
		return nil, fmt.Errorf("compile EFI stub: %w", err)
	}
	defer os.RemoveAll(dir)
	for name, b := range map[string][]byte{"stub.c": stubSource, "stub.ld": stubScript} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, fmt.Errorf("compile EFI stub: %w", err)
		}
	}
	cc := "gcc"
	if s := os.Getenv("CC"); s != "" {
		cc = s
	}
	cmd := exec.CommandContext(ctx, cc, append(stubFlags, "-o", "stub.bin", "stub.c")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile EFI stub with %s (package gcc): %w\n%s", cc, err, strings.TrimSpace(string(out)))
	}
	b, err := os.ReadFile(filepath.Join(dir, "stub.bin"))
	if err != nil {
		return nil, fmt.Errorf("compile EFI stub: %w", err)
	}
	return b, nil
}
