package operation

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is how long the kernel has been up, sleep included (clock_gettime(2)).
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
