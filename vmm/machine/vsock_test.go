package machine

import (
	"os"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestVsockRefused(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cid   uint32
		place protocol.File // -1 for /dev/null
		field string
	}{
		{"CID of the host", 2, -1, "vsock.cid"},
		{"CID of nobody", 1<<32 - 1, -1, "vsock.cid"},
		{"no vhost", 3, -1, "vsock.vhost"},
		{"no descriptor", 3, 99, "vsock.vhost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSpec(t, tinykernel.Code{}.Halt())
			if tt.place < 0 {
				tt.place = s.add(os.Open(os.DevNull))
			}
			s.Vsock = &protocol.Vsock{Vhost: tt.place, CID: tt.cid}
			g, err := FromSpec(&s.Spec, s.files)
			if err == nil {
				g.Close()
				t.Fatal("was taken")
			}
			if err.Code != protocol.InvalidArgument || err.Field != tt.field {
				t.Errorf("refused with %+v, want the field %s", err, tt.field)
			}
		})
	}
}
