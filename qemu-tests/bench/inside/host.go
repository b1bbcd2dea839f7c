package main

import (
	"fmt"
	"strings"

	"github.com/ashlar-hv/ashlar/qemu-tests/bench/work"
)

// onHost does loads on the host itself, as guests do them.
func (b *bench) onHost(s side, disk string, round int, loads []load) error {
	for _, l := range loads {
		if !b.loads.MatchString(l.name) {
			continue
		}
		b.say("%s: %s", s.name, l.name)
		r, err := work.Do(strings.Fields(fmt.Sprintf("%s %d", l.command, seconds)), disk)
		if err == nil && r.Ops == 0 {
			err = fmt.Errorf("%s: nothing was done", l.command)
		}
		if err != nil && l.mayFail {
			b.say("%s: %s failed: %v", s.name, l.name, err)
			continue
		}
		if err != nil {
			return err
		}
		b.sample(l.name, l.unit, l.better, s.name, round, l.value(float64(r.Ops), r.Took.Seconds()))
	}
	return nil
}
