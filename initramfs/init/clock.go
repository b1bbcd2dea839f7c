package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/ntp"
	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/process"
	"github.com/ashlar-hv/ashlar/initramfs/step"
)

// Times of the clock.
var (
	// A clock outside of these is wrong, whoever says so.
	earliest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

const (
	askAgain  = 30 * time.Minute
	askSooner = 30 * time.Second // while nobody answers
	// slewLimit is up to where the clock is led gently to the right time.
	slewLimit = 500 * time.Millisecond
)

// clock looks at the time, which the kernel has taken from the hardware clock.
func (m *machine) clock(context.Context) (step.Outcome, error) {
	now := time.Now()
	if !sane(now) {
		return step.Outcome{}, fmt.Errorf("the hardware clock says %s: set it in the firmware's set-up, or let the host ask a time server", now.UTC().Format(time.DateOnly))
	}
	return step.Outcome{Message: now.UTC().Format(time.DateTime) + " UTC"}, nil
}

func sane(t time.Time) bool { return t.After(earliest) && t.Before(latest) }

// startNTP begins to ask for the time, once: the configured servers, else
// offered ones.
func (m *machine) startNTP(offered []string) {
	servers := m.doc.NTP.Servers
	if len(servers) == 0 {
		servers = offered
	}
	if len(servers) == 0 {
		return
	}
	m.ntpOnce.Do(func() {
		m.spawn("clock", func() {
			backoff := process.Backoff{First: firstRetry, Limit: lastRetry, Reset: goodRun}
			for {
				started := time.Now()
				err := m.followNTP(servers)
				if m.goingDown() {
					return
				}
				m.log.Printf("clock", "NTP client: %v", err)
				time.Sleep(backoff.Next(time.Since(started)))
			}
		})
	})
}

// followNTP starts a client and corrects the clock as it says.
func (m *machine) followNTP(servers []string) error {
	p, out, err := m.startHelper(layout.NTPClientUID, nil, append([]string{"ntp-client"}, servers...)...)
	if err != nil {
		return err
	}
	defer out.Close()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		offset, err := parseOffset(lines.Text(), time.Now())
		if err == nil {
			err = correct(offset)
		}
		if err != nil {
			m.log.Printf("clock", "%v", err)
		} else if offset.Abs() >= slewLimit {
			m.log.Printf("clock", "set by %v", offset)
		}
	}
	return errors.New(endOf(p))
}

// parseOffset reads a line of the client: nanoseconds by which the clock is
// behind. The time that comes out must make sense.
func parseOffset(line string, now time.Time) (time.Duration, error) {
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read offset of the clock: %.20q is no number", line)
	}
	if d := time.Duration(n); sane(now.Add(d)) {
		return d, nil
	}
	return 0, fmt.Errorf("read offset of the clock: %v leads to a time that makes no sense", time.Duration(n))
}

// correct leads the clock to the right time, or sets it and the hardware clock
// where it is far off.
func correct(offset time.Duration) error {
	if offset.Abs() < slewLimit {
		t := unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: offset.Microseconds()}
		if _, err := unix.Adjtimex(&t); err != nil {
			return fmt.Errorf("adjust the clock: %w", err)
		}
		return nil
	}
	now := time.Now().Add(offset)
	ts := unix.NsecToTimespec(now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return setHardwareClock(now.UTC())
}

func setHardwareClock(t time.Time) error {
	f, err := os.Open("/dev/rtc0")
	if err != nil {
		return fmt.Errorf("set the hardware clock: %w", err)
	}
	defer f.Close()
	rtc := unix.RTCTime{
		Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()),
		Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900,
	}
	if err := unix.IoctlSetRTCTime(int(f.Fd()), &rtc); err != nil {
		return fmt.Errorf("set the hardware clock: %w", err)
	}
	return nil
}

// ntpClient is the helper: it asks the servers in order and writes the offset.
func ntpClient(servers []string) error {
	if err := setNoNewPrivs(); err != nil {
		return err
	}
	for {
		offset, err := ask(servers)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			time.Sleep(askSooner)
			continue
		}
		if _, err := fmt.Println(offset.Nanoseconds()); err != nil {
			return err
		}
		time.Sleep(askAgain)
	}
}

// ask returns the answer of the first server that gives a good one (RFC 5905).
func ask(servers []string) (time.Duration, error) {
	var failures []string
	for _, s := range servers {
		r, err := ntp.Query(s)
		if err == nil {
			err = r.Validate()
		}
		if err == nil {
			return r.ClockOffset, nil
		}
		failures = append(failures, fmt.Sprintf("%s: %v", s, err))
	}
	return 0, errors.New("no time server answers: " + strings.Join(failures, "; "))
}
