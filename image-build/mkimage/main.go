// mkimage builds the disk image that is flashed to a stick.
//
// Synopsis:
//
//	mkimage -kernel out/bzImage -initramfs out/initramfs.cpio.zst [-microcode out/microcode.cpio] -o out/ashlar.img
//	mkimage -describe out/ashlar.img
//
// Description:
//
//	The image has a GUID partition table, an EFI system partition with one EFI
//	binary that holds kernel, initramfs and command line, and a configuration
//	partition. The same input makes the same bytes. gcc is needed for the few
//	lines of code in front of the kernel.
//
// Options:
//
//	-kernel FILE     bzImage with the EFI stub
//	-initramfs FILE  compressed cpio archive
//	-microcode FILE  archive of processors' microcode (mkmicrocode), in front of the initramfs
//	-o FILE          the image; it is replaced at once or not at all
//	-cmdline STRING  the kernel's command line, instead of the default
//	-rescue          ask for a shell on the second serial port
//	-config FILE     put this configuration document onto the image
//	-version STRING  what the image calls itself (default: the file VERSION)
//	-describe IMAGE  say what is on an image and how to flash it
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/ashlar-hv/ashlar/image-build/configure"
	"github.com/ashlar-hv/ashlar/image-build/disk"
	"github.com/ashlar-hv/ashlar/image-build/efi"
	"github.com/ashlar-hv/ashlar/image-build/microcode"
)

type options struct {
	kernel, initramfs, microcode, output, cmdline, config, version, describe string
	rescue                                                                   bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "mkimage: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	f := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	f.StringVar(&o.kernel, "kernel", "", "bzImage with the EFI stub")
	f.StringVar(&o.initramfs, "initramfs", "", "compressed cpio archive")
	f.StringVar(&o.microcode, "microcode", "", "archive of processors' microcode, in front of the initramfs")
	f.StringVar(&o.output, "o", "", "the image to write")
	f.StringVar(&o.cmdline, "cmdline", disk.CommandLine(), "the kernel's command line")
	f.BoolVar(&o.rescue, "rescue", false, "ask for a shell on the second serial port")
	f.StringVar(&o.config, "config", "", "configuration document to put onto the image")
	f.StringVar(&o.version, "version", "", "what the image calls itself (default: the file VERSION)")
	f.StringVar(&o.describe, "describe", "", "say what is on this image and how to flash it")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("%q: there are options only, see mkimage -help", f.Arg(0))
	case o.describe != "":
		return describe(out, o.describe)
	case o.kernel == "" || o.initramfs == "" || o.output == "":
		return errors.New("-kernel, -initramfs and -o are needed, see mkimage -help")
	}
	if err := o.build(ctx); err != nil {
		return err
	}
	return describe(out, o.output)
}

func (o *options) build(ctx context.Context) error {
	i := efi.Image{CommandLine: o.cmdline}
	if o.rescue {
		i.CommandLine += " " + disk.Rescue
	}
	var err error
	if i.Kernel, err = read(o.kernel, "make kernel"); err != nil {
		return err
	}
	if i.Initramfs, err = read(o.initramfs, "make initramfs"); err != nil {
		return err
	}
	if err := o.addMicrocode(&i); err != nil {
		return err
	}
	if i.Release, err = o.release(); err != nil {
		return err
	}
	stub, err := efi.CompileStub(ctx)
	if err != nil {
		return err
	}
	binary, err := i.Build(stub)
	if err != nil {
		return err
	}
	image, err := disk.Build(binary)
	if err != nil {
		return err
	}
	return o.write(image)
}

// addMicrocode puts the archive in front of the initramfs, where the kernel looks for it.
func (o *options) addMicrocode(i *efi.Image) error {
	if _, _, err := microcode.Read(i.Initramfs); !errors.Is(err, microcode.ErrNone) {
		return fmt.Errorf("%s: it begins with microcode: give that as -microcode, by itself", o.initramfs)
	}
	if o.microcode == "" {
		return nil
	}
	b, err := read(o.microcode, "make microcode")
	if err != nil {
		return err
	}
	_, size, err := microcode.Read(b)
	if err == nil && size != len(b) {
		err = fmt.Errorf("there are %d bytes behind its %d", len(b)-size, size)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.microcode, err)
	}
	i.Initramfs = append(b, i.Initramfs...)
	return nil
}

func read(path, target string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: `%s` makes it", err, target)
	}
	return b, err
}

// release is what the image calls itself, in the form of os-release(5).
func (o *options) release() (string, error) {
	version := o.version
	if version == "" {
		b, err := os.ReadFile("VERSION")
		if err != nil {
			return "", fmt.Errorf("%w: give -version", err)
		}
		version = strings.TrimSpace(string(b))
	}
	if version == "" || strings.ContainsAny(version, "\"\n\\$`") {
		return "", fmt.Errorf("version %q: want one word", version)
	}
	return fmt.Sprintf("ID=ashlar\nNAME=Ashlar\nVERSION_ID=%q\nPRETTY_NAME=%q\n", version, "Ashlar "+version), nil
}

// write puts the image in its place once it is whole and on the disk.
func (o *options) write(image []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(o.output), ".mkimage-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(image)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if o.config != "" {
		doc, err := os.ReadFile(o.config)
		if err != nil {
			return err
		}
		if err := configure.Configure(f.Name(), doc); err != nil {
			return err
		}
	}
	return os.Rename(f.Name(), o.output)
}

// describe says what is on an image.
func describe(out io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	l, err := disk.Open(f, st.Size())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	binary, i, err := l.Binary(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, st.Size())); err != nil {
		return err
	}
	configured := "put in: ashlarctl image configure " + path + " --config FILE"
	if _, err := configure.Read(path); err == nil {
		configured = "present"
	} else if !errors.Is(err, configure.ErrNotConfigured) {
		return err
	}
	ucode, early, err := microcode.Read(i.Initramfs)
	if err != nil && !errors.Is(err, microcode.ErrNone) {
		return fmt.Errorf("%s: %w", path, err)
	}
	has := "none"
	if early > 0 {
		has = disk.Size(int64(early)) + ": " + strings.Join(ucode.Sources, ", ")
	}
	for _, row := range [][2]string{
		{"image", fmt.Sprintf("%s (%s of %s)", path, disk.Size(st.Size()), disk.Size(disk.MaxSize))},
		{"EFI binary", disk.Size(int64(len(binary)))},
		{"  kernel", disk.Size(int64(len(i.Kernel)))},
		{"  microcode", has},
		{"  initramfs", disk.Size(int64(len(i.Initramfs) - early))},
		{"  command line", i.CommandLine},
		{"configuration", configured},
		{"sha256", fmt.Sprintf("%x", h.Sum(nil))},
		{"to flash", "dd if=" + path + " of=/dev/sdX bs=4M conv=fsync status=progress"},
	} {
		if _, err := fmt.Fprintf(out, "%-16s%s\n", row[0], row[1]); err != nil {
			return err
		}
	}
	return nil
}
