package hostcheck

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/ashlar-hv/ashlar/image-build/microcode"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// microcode compares the revisions of all processors with each other and with what the image
// has for them.
func (c *checker) microcode() {
	names, _ := fs.Glob(c.root, cpus+"/cpu[0-9]*/microcode/version")
	seen := make(map[string]int)
	last := ""
	for _, n := range names {
		if text, ok := c.text(n); ok {
			seen[text]++
			last = text
		}
	}
	const firmware = "Build the image anew, with the microcode of today, or update the firmware: all processors have to have the same."
	switch {
	case len(seen) == 0:
		c.add(layout.CheckMicrocode, hostcall.Unknown, "The processor tells no revision. "+c.offer(),
			"Nothing is to be done where the host is itself a guest; otherwise update the firmware.")
	case len(seen) > 1:
		c.add(layout.CheckMicrocode, hostcall.Weak, fmt.Sprintf("Processors have %d revisions. %s", len(seen), c.offer()), firmware)
	case c.older(last):
		c.add(layout.CheckMicrocode, hostcall.Weak, "Revision "+last+", though it could be newer. "+c.offer(),
			"Take dis_ucode_ldr from the kernel command line; where it is not there the kernel has refused the image's, and says why in its log (microcode:): update the firmware.")
	default:
		c.add(layout.CheckMicrocode, hostcall.Passed, "Revision "+last+". "+c.offer(), "")
	}
}

// offered is the newest revision that the image has for the first processor: zero where it
// has none, and ok where the image has microcode at all.
func (c *checker) offered() (signature microcode.Signature, revision uint32, ok bool) {
	b, err := fs.ReadFile(c.root, strings.TrimPrefix(microcode.Folder, "/")+"/"+microcode.ContentsFile)
	if err != nil {
		return signature, 0, false
	}
	contents, err := microcode.ParseContents(b)
	if err != nil {
		return signature, 0, false
	}
	vendor, signature := c.processor()
	revision, _ = contents.For(vendor, signature.CPUID, signature.Platforms)
	return signature, revision, true
}

// offer says what the image has.
func (c *checker) offer() string {
	signature, revision, ok := c.offered()
	switch {
	case !ok:
		return "The image has no microcode."
	case revision == 0:
		return fmt.Sprintf("The image has none for this processor (%s).", signature)
	}
	return fmt.Sprintf("The image has %#x for this processor (%s).", revision, signature)
}

// older tells whether the image has a newer revision than the one that runs.
func (c *checker) older(running string) bool {
	_, revision, ok := c.offered()
	v, err := strconv.ParseUint(strings.TrimPrefix(running, "0x"), 16, 32)
	return ok && err == nil && uint32(v) < revision
}

// processor is who made the first processor, and its signature.
func (c *checker) processor() (microcode.Vendor, microcode.Signature) {
	text, _ := c.text("proc/cpuinfo")
	first, _, _ := strings.Cut(text, "\n\n")
	field := make(map[string]string)
	for line := range strings.Lines(first) {
		name, value, _ := strings.Cut(line, ":")
		field[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	number := func(name string) int {
		n, err := strconv.Atoi(field[name])
		if err != nil {
			return -1
		}
		return n
	}
	var s microcode.Signature
	s.CPUID, _ = microcode.SignatureOf(number("cpu family"), number("model"), number("stepping"))
	flags, _ := c.text(cpus + "/cpu0/microcode/processor_flags")
	if v, err := strconv.ParseUint(strings.TrimPrefix(flags, "0x"), 16, 32); err == nil {
		s.Platforms = uint32(v)
	}
	return microcode.Vendor(field["vendor_id"]), s
}
