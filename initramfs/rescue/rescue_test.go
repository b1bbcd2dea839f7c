package rescue

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	list, err := Commands()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(list) {
		t.Error("commands.go is not sorted")
	}
	if !slices.Contains(list, "github.com/u-root/u-root/cmds/core/gosh") {
		t.Error("there is no shell: init starts gosh")
	}
	// All are within reach of go.mod, with everything they import.
	out, err := exec.Command("go", append([]string{"list", "-mod=readonly", "-deps"}, list...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, strings.TrimSpace(string(out)))
	}
}
