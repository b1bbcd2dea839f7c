package control_test

import (
	"fmt"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// together calls f n times at once.
func together(n int, f func(int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func TestCreateTogether(t *testing.T) {
	l := newLab(t)
	l.upload("kernel", 1000)
	l.upload("disk", 1024)
	const n = 8
	var mu sync.Mutex
	made, refused := map[string]int{}, 0
	together(n, func(int) {
		res, err := l.machines.CreateVirtualMachine(ctxOf(t), req(spec("demo")))
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			made[res.Msg.Uid]++
		case connect.CodeOf(err) == connect.CodeAlreadyExists:
			refused++
		default:
			t.Error(err)
		}
	})
	if len(made) != 1 || refused != n-1 {
		t.Errorf("the same name: made %v, refused %d", made, refused)
	}
	clear(made)
	together(n, func(int) {
		same := spec("twin")
		same.RequestId = "0b0d3b8e-5f43-4b5e-9a6a-0b3f1d5c7e13"
		res, err := l.machines.CreateVirtualMachine(ctxOf(t), req(same))
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			t.Error(err)
			return
		}
		made[res.Msg.Uid]++
	})
	if len(made) != 1 {
		t.Errorf("the same request: made %v", made)
	}
	macs := map[string]bool{}
	together(n, func(i int) {
		res, err := l.machines.CreateVirtualMachine(ctxOf(t), req(spec(fmt.Sprintf("vm-%d", i))))
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			t.Error(err)
			return
		}
		macs[res.Msg.NetworkInterfaces[0].MacAddress] = true
	})
	if len(macs) != n {
		t.Errorf("%d machines have MAC addresses %v", n, macs)
	}
}

// Either the image goes, or the machine that is to boot from it comes.
func TestDeleteImageWhileCreating(t *testing.T) {
	l := newLab(t)
	l.upload("disk", 1024)
	for i := range 20 {
		l.upload("kernel", 100)
		name := fmt.Sprintf("vm-%d", i)
		var created, deleted error
		together(2, func(k int) {
			if k == 0 {
				_, created = l.machines.CreateVirtualMachine(ctxOf(t), req(spec(name)))
			} else {
				_, deleted = l.images.DeleteImage(ctxOf(t), req(&ashlarv1.DeleteImageRequest{Name: "images/kernel"}))
			}
		})
		switch {
		case created == nil && connect.CodeOf(deleted) == connect.CodeFailedPrecondition:
			l.done(l.machines.DeleteVirtualMachine(ctxOf(t), req(&ashlarv1.DeleteVirtualMachineRequest{Name: "virtualMachines/" + name})))
			if _, err := l.images.DeleteImage(ctxOf(t), req(&ashlarv1.DeleteImageRequest{Name: "images/kernel"})); err != nil {
				t.Fatal(err)
			}
		case deleted == nil && connect.CodeOf(created) == connect.CodeInvalidArgument:
		case created != nil && deleted != nil: // each saw the other; neither did harm
			if _, err := l.images.DeleteImage(ctxOf(t), req(&ashlarv1.DeleteImageRequest{Name: "images/kernel"})); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("created: %v, deleted: %v", created, deleted)
		}
	}
	if guests, _ := l.core.Count(); guests != 0 {
		t.Errorf("%d guests left", guests)
	}
}
