package initramfs

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestProgram runs the init of the tiny guest here.
func TestProgram(t *testing.T) {
	name := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(name, program(Started+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(name)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != Started+"\n" || err != nil {
		t.Errorf("it printed %q (%v), want %q", line, err, Started+"\n")
	}
	if err := c.Process.Kill(); err != nil {
		t.Errorf("it does not go on: %v", err)
	}
	_ = c.Wait()
}
