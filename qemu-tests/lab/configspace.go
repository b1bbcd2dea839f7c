package lab

import (
	"errors"
	"fmt"
	"strings"
)

// configAddress is the port of the mechanism by which PCs reach configuration space (PCI Local Bus
// Specification 3.0, 3.2.2.3.2), and configData that of the data.
const configAddress, configData = 0xcf8, 0xcfc

// WriteConfig writes 16 bits to the configuration space, below 0x100, of the PCI function at an address such as
// 0000:00:06.0: what hardware or firmware would do, as the host's kernel lets no program do it
// (lockdown). The machine stands still meanwhile.
func (l *Lab) WriteConfig(address string, at int, value uint16) (err error) {
	var bus, device, function uint32
	if _, err := fmt.Sscanf(address, "0000:%02x:%02x.%d", &bus, &device, &function); err != nil || at < 0 || at > 0xfe || at&1 != 0 {
		return fmt.Errorf("write to %#x in the configuration space of %s: no such place", at, address)
	}
	if _, err := l.QMP("stop", nil); err != nil {
		return err
	}
	defer func() {
		_, goOn := l.QMP("cont", nil)
		err = errors.Join(err, goOn)
	}()
	out, err := l.Monitor(fmt.Sprintf("i /w %#x", configAddress))
	if err != nil {
		return err
	}
	_, had, _ := strings.Cut(out, "= ")
	var before uint32
	if _, err := fmt.Sscanf(had, "0x%x", &before); err != nil {
		return fmt.Errorf("QEMU says of port %#x: %q", configAddress, out)
	}
	place := 1<<31 | bus<<16 | device<<11 | function<<8 | uint32(at)&^3
	for _, c := range []string{
		fmt.Sprintf("o /w %#x %#x", configAddress, place),
		fmt.Sprintf("o /h %#x %#x", configData+(at&3), value),
		fmt.Sprintf("o /w %#x %#x", configAddress, before),
	} {
		if _, err := l.Monitor(c); err != nil {
			return err
		}
	}
	return nil
}
