// Package cache keeps what the lab's programs fetch from Debian: a folder for
// each recipe, made once, outside of the tree. A recipe that changes, or a
// cleared cache, has it made anew, with Debian's updates.
package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Get returns the folder of a recipe. Where there is none yet, build fills it;
// others that want it wait as long.
func Get(name string, recipe []byte, build func(dir string) error) (string, error) {
	base, err := folder()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(recipe)
	dir := filepath.Join(base, name, hex.EncodeToString(sum[:8]))
	unlock, err := lock(dir)
	if err != nil {
		return "", err
	}
	defer unlock()
	complete := filepath.Join(dir, "complete")
	if _, err := os.Stat(complete); err == nil {
		return dir, nil
	}
	if err := build(dir); err != nil {
		return "", err
	}
	return dir, os.WriteFile(complete, nil, 0o644)
}

func folder() (string, error) {
	if d := os.Getenv("ASHLAR_CACHE"); d != "" {
		return d, nil
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache folder: %w: set ASHLAR_CACHE", err)
	}
	return filepath.Join(d, "ashlar"), nil
}

// lock makes dir and keeps others from building in it.
func lock(dir string) (func(), error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// Link makes symbolic links in out, which is made where it is missing, to the
// named files of dir.
func Link(dir, out string, names []string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		to := filepath.Join(out, name)
		os.Remove(to + ".new")
		if err := os.Symlink(filepath.Join(dir, name), to+".new"); err != nil {
			return err
		}
		if err := os.Rename(to+".new", to); err != nil {
			return err
		}
	}
	return nil
}

// Run runs a command that may take minutes, and says every ten seconds that it
// is at work. Its error has the end of what the command said.
func Run(who string, c *exec.Cmd) error {
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	name := filepath.Base(c.Path)
	stop := ticker(fmt.Sprintf("%s: %s is at work", who, name))
	defer stop()
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, tail(log.String(), 30))
	}
	return nil
}

// ticker prints what and the time it has taken every ten seconds.
func ticker(what string) func() {
	start, done := time.Now(), make(chan struct{})
	go func() {
		for t := time.NewTicker(10 * time.Second); ; {
			select {
			case <-done:
				t.Stop()
				return
			case <-t.C:
				fmt.Printf("%s (%.0f s)\n", what, time.Since(start).Seconds())
			}
		}
	}()
	return func() { close(done) }
}

// tail is the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
