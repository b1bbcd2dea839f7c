// Ashlar-lab runs the lab host of `make run`, `make up` and `make down`.
//
// Usage:
//
//	ashlar-lab up      start the host in the background, with an ashlarctl context named lab
//	ashlar-lab run     up, then a Debian guest named demo, and attach to its console
//	ashlar-lab down    press the host's power button and wait
//	ashlar-lab status  say whether the host runs
//
// It is run from the top of the tree, where out/ holds what was built.
//
// Environment: LAB_MEM (QEMU's -m, 4G), LAB_CPUS (QEMU's -smp; see lab.Config), LAB_ARGS (added
// to QEMU's), LAB_PORT (where the API appears on 127.0.0.1, 8443),
// LAB_RESCUE=1 (a root shell on out/lab/rescue.sock).
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/ashlar-hv/ashlar/qemu-tests/lab"
)

const (
	dir = "out/lab"
	ctl = "out/bin/ashlarctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: ashlar-lab up|run|down|status")
	}
	switch args[0] {
	case "up":
		return up(ctx)
	case "run":
		return demo(ctx)
	case "down":
		return down(ctx)
	case "status":
		return status()
	}
	return fmt.Errorf("unknown command %q: usage: ashlar-lab up|run|down|status", args[0])
}

// step says what is done, does it, and says how long it took.
func step(what string, do func() error) error {
	fmt.Printf("==> %s\n", what)
	start, done := time.Now(), make(chan struct{})
	if !term.IsTerminal(int(os.Stdout.Fd())) {
		go heartbeat(what, done)
	}
	err := do()
	close(done)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Printf("    done in %.1f s\n", time.Since(start).Seconds())
	return nil
}

// heartbeat shows that a step goes on.
func heartbeat(what string, done <-chan struct{}) {
	start := time.Now()
	for t := time.NewTicker(10 * time.Second); ; {
		select {
		case <-done:
			t.Stop()
			return
		case <-t.C:
			fmt.Printf("    %s (%.0f s)\n", what, time.Since(start).Seconds())
		}
	}
}

// ashlarctl runs the command with the context lab.
func ashlarctl(ctx context.Context, args ...string) error {
	c := exec.CommandContext(ctx, ctl, args...)
	c.Env = append(os.Environ(), "ASHLAR_CONTEXT=lab")
	c.Stdin, c.Stdout, c.Stderr = nil, os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("ashlarctl %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// settings reads the environment.
func settings() (c lab.Config, image string, err error) {
	c = lab.Config{Dir: dir, Memory: os.Getenv("LAB_MEM"), Port: 8443, Args: strings.Fields(os.Getenv("LAB_ARGS"))}
	for name, to := range map[string]*int{"LAB_CPUS": &c.CPUs, "LAB_PORT": &c.Port} {
		s := os.Getenv(name)
		if s == "" {
			continue
		}
		if *to, err = strconv.Atoi(s); err != nil || *to < 1 || *to > 65535 {
			return c, "", fmt.Errorf("%s=%s: want a number from 1 on", name, s)
		}
	}
	image = "out/ashlar.img"
	if os.Getenv("LAB_RESCUE") == "1" {
		image = "out/ashlar-rescue.img"
	}
	return c, image, nil
}

// up makes the lab run the image that was built last.
func up(ctx context.Context) error {
	c, image, err := settings()
	if err != nil {
		return err
	}
	sum, err := digest(image)
	if err != nil {
		return fmt.Errorf("%w: make image builds it", err)
	}
	old, err := lab.Open(dir)
	if err == nil && old.Running() {
		if b, _ := os.ReadFile(filepath.Join(dir, "image.sha256")); string(b) == sum && old.Port == c.Port {
			fmt.Println("==> The lab host runs already, from this very image (make down stops it)")
			return nil
		}
		if err := step("Stop the lab host, which runs another image", func() error { return shut(ctx, old) }); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := step("Write the USB stick with its configuration", func() error { return stick(ctx, c, image, sum) }); err != nil {
		return err
	}
	kind := "software emulation"
	if lab.Hardware() {
		kind = "KVM"
	}
	return step("Boot the lab host from it (QEMU, "+kind+")", func() error {
		l, err := lab.Start(c)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
		defer cancel()
		return l.WaitReady(ctx)
	})
}

// stick writes the emulated USB stick.
func stick(ctx context.Context, c lab.Config, image, sum string) error {
	doc := filepath.Join(dir, "ashlar.yaml")
	address := fmt.Sprintf("127.0.0.1:%d", c.Port)
	// What the context was when the document was made: the lab of another tree, or on
	// another port, makes the context anew, and this one's document is stale then.
	marker := filepath.Join(dir, "context")
	known, _ := os.ReadFile(marker)
	now, showErr := showContext(ctx)
	if _, err := os.Stat(doc); err != nil || showErr != nil || !bytes.Equal(known, now) || !bytes.Contains(now, []byte(address)) {
		if err := ashlarctl(ctx, "config", "init", "--context", "lab", "--host-name", "lab", "--address", address,
			"--interface", lab.ManagementMAC, "--disk", "serial=ashlar-data", "--out", doc, "--force"); err != nil {
			return err
		}
		if now, showErr = showContext(ctx); showErr != nil {
			return fmt.Errorf("show the context lab: %w", showErr)
		}
		if err := os.WriteFile(marker, now, 0o644); err != nil {
			return err
		}
	}
	to := filepath.Join(dir, lab.StickFile)
	if err := copyFile(image, to); err != nil {
		return err
	}
	if err := ashlarctl(ctx, "image", "configure", to, "--config", doc); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "image.sha256"), []byte(sum), 0o644)
}

// showContext is all about the context lab: address, CA, certificate.
func showContext(ctx context.Context) ([]byte, error) {
	return exec.CommandContext(ctx, ctl, "context", "show", "lab").Output()
}

// demo starts the guest named demo and attaches to its console.
func demo(ctx context.Context) error {
	start := time.Now()
	if err := up(ctx); err != nil {
		return err
	}
	get := exec.CommandContext(ctx, ctl, "--context", "lab", "vm", "get", "demo", "-o", "json")
	if get.Run() != nil {
		if err := create(ctx); err != nil {
			return err
		}
	}
	running := exec.CommandContext(ctx, ctl, "--context", "lab", "vm", "wait", "demo", "--for", "running", "--timeout", "1s")
	if running.Run() != nil {
		if err := step("Start the guest demo", func() error { return ashlarctl(ctx, "vm", "start", "demo") }); err != nil {
			return err
		}
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		if err := step("Wait for the guest's login prompt", func() error {
			return ashlarctl(ctx, "vm", "console", "demo", "--until", "login: ", "--timeout", "5m")
		}); err != nil {
			return err
		}
		fmt.Printf("==> The guest demo shows its login prompt, %.1f s after the start\n", time.Since(start).Seconds())
		hints()
		return nil
	}
	fmt.Printf("==> The console of the guest demo, %.1f s after the start: log in as root; Ctrl-] detaches\n", time.Since(start).Seconds())
	c := exec.CommandContext(ctx, ctl, "--context", "lab", "vm", "console", "demo")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := c.Run()
	hints()
	return err
}

func hints() {
	fmt.Println(`
The host and its guest go on in the background.
    make run                                           attach again
    out/bin/ashlarctl --context lab vm list            see guests
    out/bin/ashlarctl --context lab vm stop demo       stop the guest
    make down                                          stop the host`)
}

// create uploads the Debian guest and makes the virtual machine. The images
// carry the recipe's hash in their names, so that a new recipe meets no old image.
func create(ctx context.Context) error {
	real, err := filepath.EvalSymlinks("out/demo/disk.img")
	if err != nil {
		return fmt.Errorf("%w: make demo builds it", err)
	}
	name := "debian-" + filepath.Base(filepath.Dir(real))
	for _, f := range []string{"vmlinuz", "initrd.img", "disk.img"} {
		if err := step("Upload Debian's "+f, func() error {
			return ashlarctl(ctx, "image", "upload", filepath.Join("out/demo", f), "--name", name+"-"+f)
		}); err != nil {
			return err
		}
	}
	return step("Create the guest demo", func() error {
		return ashlarctl(ctx, "vm", "create", "demo", "--cpus", "1", "--memory", "512MiB",
			"--kernel", name+"-vmlinuz", "--initramfs", name+"-initrd.img",
			"--cmdline", "root=/dev/vda rw console=ttyS0 quiet", "--disk", name+"-disk.img", "--network", "default")
	})
}

func down(ctx context.Context) error {
	l, err := lab.Open(dir)
	if err != nil || !l.Running() {
		fmt.Println("==> The lab host does not run")
		return nil
	}
	return step("Press the lab host's power button and wait", func() error { return shut(ctx, l) })
}

func shut(ctx context.Context, l *lab.Lab) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return l.Down(ctx)
}

func status() error {
	l, err := lab.Open(dir)
	if err != nil || !l.Running() {
		return errors.New("the lab host does not run: make up starts it")
	}
	fmt.Printf("The lab host runs (QEMU process %d), API at 127.0.0.1:%d, console in %s\n", l.PID(), l.Port, l.Path(lab.SerialFile))
	return nil
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}
