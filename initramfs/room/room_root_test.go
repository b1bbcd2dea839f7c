//go:build roottest

package room

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/initramfs/mounts"
	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// probeName is what the test binary is called as the program in the room.
const probeName = "probe"

// In the namespaces, the test binary enters the room that the variable holds.
// It then finds itself started again, as the program.
func TestMain(m *testing.M) {
	text := os.Getenv("ROOM_TEST")
	switch {
	case os.Args[0] == probeName:
		probe()
		return
	case text == "":
		os.Exit(m.Run())
	}
	var r Room
	err := json.Unmarshal([]byte(text), &r)
	if err == nil {
		err = mounts.PivotableRoot() // as init does: the root may be an initramfs
	}
	if err == nil {
		err = r.Enter()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// folder makes one that everybody can reach.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// program copies the test binary.
func program(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder(t), probeName)
	if err := os.WriteFile(file, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func enter(t *testing.T, r Room) ([]byte, error) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	c := exec.Command("/proc/self/exe")
	c.Env = []string{"ROOM_TEST=" + string(text)}
	c.Stdout, c.Stderr = &out, &errs
	c.ExtraFiles = []*os.File{os.Stdin, os.Stdin}
	c.SysProcAttr = jail.Attributes(uint32(r.UID), uint32(r.UID))
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, errs.Bytes())
	}
	return out.Bytes(), nil
}

func TestEnter(t *testing.T) {
	stage, state, core := folder(t), folder(t), folder(t)
	if err := os.Chown(state, 900, 900); err != nil {
		t.Fatal(err)
	}
	out, err := enter(t, Room{
		Stage: stage, Program: program(t), UID: 900, Files: 4,
		Binds: []Bind{{Source: state, Target: "/state", Writable: true}, {Source: core, Target: "/core"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	want := map[string]any{
		"args": []any{"probe"}, "env": []any{},
		"pid": 1.0, "uid": 900.0, "gid": 900.0, "groups": 0.0,
		"files":      []any{"/", "/core", "/probe", "/state"},
		"write root": false, "write ro": false, "write state": true,
		"fds":  []any{0.0, 1.0, 2.0, 3.0},
		"caps": "[{0 0 0} {0 0 0}]", "bounding": 0.0, "nnp": 1.0,
		"interfaces": 1.0, // its own loopback
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the program sees (-want +got):\n%s", diff)
	}
	if entries, err := os.ReadDir(stage); err != nil || len(entries) != 0 {
		t.Errorf("the room shows outside: %v, %v", entries, err)
	}
}

func TestEnterFails(t *testing.T) {
	for name, r := range map[string]Room{
		"no program": {Stage: folder(t), Program: "/nonexistent", UID: 900, Files: 3},
		"no stage":   {Stage: "/nonexistent", Program: "/bin/true", UID: 900, Files: 3},
		"no source":  {Stage: folder(t), Program: "/bin/true", UID: 900, Files: 3, Binds: []Bind{{Source: "/nonexistent", Target: "/x"}}},
	} {
		if _, err := enter(t, r); err == nil || !bytes.Contains([]byte(err.Error()), []byte("enter room of "+r.Program+": build")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
