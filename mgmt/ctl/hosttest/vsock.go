package hosttest

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// ConnectVirtualMachine echoes, on each port.
func (h *Host) ConnectVirtualMachine(_ context.Context, st *connect.BidiStream[ashlarv1.ConnectVirtualMachineRequest, ashlarv1.ConnectVirtualMachineResponse]) error {
	first, err := st.Receive()
	if err != nil {
		return err
	}
	h.mu.Lock()
	_, err = h.guest(first.GetName())
	h.mu.Unlock()
	if err != nil {
		return err
	}
	for data := []byte(nil); ; {
		if err := st.Send(&ashlarv1.ConnectVirtualMachineResponse{Data: data}); err != nil {
			return err
		}
		m, err := st.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		data = m.GetData()
	}
}
