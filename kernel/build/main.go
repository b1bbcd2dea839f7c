// Command build makes a kernel: host, for the machine Ashlar runs on, or guest, for tests and the demo.
//
//	go run ./kernel/build host|guest [-o out/bzImage] [-j N] [-print-hash] [-keep]
//
// The kernel goes to the file named by -o (default out/bzImage, for the guest out/guest-bzImage); beside it lie its
// configuration (.config added to the name) and what it was made from (.version). The guest kernel comes as ELF file
// too, with vmlinux for bzImage in its name.
//
// Sources come from Debian's package linux-source-6.12, or the tarball named by KERNEL_SRC. What was built once lies
// under the user's cache folder (or ASHLAR_CACHE), named by a hash of all it was made from, and is only copied the next
// time. With -keep the object tree stays there, so that the next build with other options only compiles what they change.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/ashlar-hv/ashlar/kernel/recipe"
)

var errUsage = errors.New("usage: build host|guest [-o FILE] [-j N] [-print-hash] [-keep]")

// options are the command line.
type options struct {
	profile   recipe.Profile
	output    string
	jobs      int
	printHash bool
	keep      bool
}

func parseArgs(args []string, stderr io.Writer) (options, error) {
	var o options
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return o, errUsage
	}
	profile, err := recipe.ProfileByName(args[0])
	if err != nil {
		return o, err
	}
	o.profile = profile
	output := "out/bzImage"
	if profile == recipe.Guest {
		output = "out/guest-bzImage"
	}
	flags := flag.NewFlagSet("build "+profile.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.output, "o", output, "the `file` to write")
	flags.IntVar(&o.jobs, "j", runtime.NumCPU()+1, "compilers at a time: one more than CPUs, so that none waits for a disk")
	flags.BoolVar(&o.printHash, "print-hash", false, "print the name of the build in the cache, and build nothing")
	flags.BoolVar(&o.keep, "keep", false, "keep the object tree for the next build")
	if err := flags.Parse(args[1:]); err != nil {
		return o, err
	}
	if flags.NArg() > 0 || o.jobs < 1 {
		return o, errUsage
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseArgs(args, stderr)
	if err != nil {
		return err
	}
	in, err := input(ctx, o.profile)
	if err != nil {
		return err
	}
	hash, err := in.Hash()
	if err != nil {
		return err
	}
	if o.printHash {
		_, err := fmt.Fprintln(stdout, hash)
		return err
	}
	start := time.Now()
	b := builder{in: in, hash: hash, jobs: o.jobs, keep: o.keep, out: stdout, tty: isTerminal(stdout)}
	if b.cache, err = cacheDir(); err != nil {
		return err
	}
	dir, err := b.artefacts(ctx)
	if err != nil {
		return err
	}
	if err := install(dir, o.output); err != nil {
		return err
	}
	info, err := os.Stat(o.output)
	if err != nil {
		return err
	}
	b.say("%s, %.2f MiB, after %s", o.output, float64(info.Size())/(1<<20), time.Since(start).Round(time.Millisecond))
	return nil
}

func input(ctx context.Context, p recipe.Profile) (recipe.Input, error) {
	asked, err := p.Asked()
	if err != nil {
		return recipe.Input{}, err
	}
	source, err := recipe.FindSource()
	if err != nil {
		return recipe.Input{}, err
	}
	toolchain, err := recipe.FindToolchain(ctx)
	if err != nil {
		return recipe.Input{}, err
	}
	return recipe.NewInput(p, source, asked, toolchain), nil
}

// cacheDir is where kernels are kept between builds.
func cacheDir() (string, error) {
	base := os.Getenv("ASHLAR_CACHE")
	if base == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("no cache folder: %w; set ASHLAR_CACHE to one", err)
		}
		base = filepath.Join(user, "ashlar")
	}
	base, err := filepath.Abs(base)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "kernel")
	return dir, os.MkdirAll(dir, 0o755)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "kernel:", err)
		}
		stop()
		os.Exit(1)
	}
}
