package control_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// grpcurl builds the tool of that name, at the version in tools/go.mod.
func grpcurl(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "grpcurl")
	cmd := exec.Command("go", "build", "-o", path, "github.com/fullstorydev/grpcurl/cmd/grpcurl")
	cmd.Dir = filepath.Join("..", "..", "tools")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build grpcurl: %v\n%s", err, out)
	}
	return path
}

// Anybody with grpcurl and a certificate needs nothing else: reflection tells the rest.
func TestGrpcurl(t *testing.T) {
	l := newLab(t)
	l.withMachine("demo")
	tool, dir := grpcurl(t), t.TempDir()
	cert, key := l.ca.Issue(t, "admin", x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour))
	for name, text := range map[string]string{"ca": l.ca.PEM, "cert": cert, "key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		all := append([]string{"-cacert", "ca", "-cert", "cert", "-key", "key", "-authority", "localhost"}, args...)
		cmd := exec.CommandContext(ctx, tool, all...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run(l.address, "list")
	if err != nil || !strings.Contains(out, "ashlar.v1.VirtualMachineService\n") {
		t.Errorf("list: %v\n%s", err, out)
	}
	out, err = run(l.address, "describe", "ashlar.v1.VirtualMachine")
	if err != nil || !strings.Contains(out, "memory_bytes") {
		t.Errorf("describe: %v\n%s", err, out)
	}
	out, err = run("-d", `{"name":"virtualMachines/demo"}`, l.address, "ashlar.v1.VirtualMachineService/GetVirtualMachine")
	var vm struct {
		Name string
		Cpus int
	}
	if err != nil || json.Unmarshal([]byte(out), &vm) != nil || vm.Name != "virtualMachines/demo" || vm.Cpus != 2 {
		t.Errorf("get: %v\n%s", err, out)
	}
	out, err = run("-d", `{"virtual_machine_id":"X"}`, l.address, "ashlar.v1.VirtualMachineService/CreateVirtualMachine")
	if err == nil || !strings.Contains(out, "InvalidArgument") || !strings.Contains(out, "virtual_machine_id") {
		t.Errorf("a wrong request: %v\n%s", err, out)
	}
	out, err = run(l.address, "grpc.health.v1.Health/Check")
	if err != nil || !strings.Contains(out, "SERVING") {
		t.Errorf("health: %v\n%s", err, out)
	}
}
