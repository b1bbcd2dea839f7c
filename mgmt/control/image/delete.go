package image

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Delete removes the image called name (ImageService.DeleteImage).
func (m *Manager) Delete(ctx context.Context, name, etag string) error {
	im, err := m.find("name", name)
	if err != nil {
		return err
	}
	if err := im.leave(name, etag); err != nil {
		return err
	}
	defer im.stay()
	// Marked first: whoever wants to use it from now on sees the mark, and who has
	// begun before is seen here.
	if users := m.users(im.rec.ID); len(users) > 0 {
		return inUse(name, users)
	}
	if err := m.setPhase(im, store.Deleting); err != nil {
		return refuse.Internal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	err = m.remove(ctx, im)
	if err != nil && outcomeKnown(err) { // refused: it is as it was. Else Reconcile goes on
		if serr := m.setPhase(im, store.Ready); serr != nil {
			m.log.Error("image not stored", "image", im.rec.ID, "error", serr)
		}
	}
	return refuse.Core(err, name, nil)
}

// setPhase notes the phase, or leaves the one that is stored.
func (m *Manager) setPhase(im *image, p store.Phase) error {
	im.mu.Lock()
	old := im.rec.Phase
	im.rec.Phase = p
	im.mu.Unlock()
	err := m.save(im)
	if err != nil { // else Reconcile would go on with what was refused
		im.mu.Lock()
		im.rec.Phase = old
		im.mu.Unlock()
	}
	return err
}

// remove makes core remove the file, and forgets the image.
func (m *Manager) remove(ctx context.Context, im *image) error {
	_, err := m.core.Do(ctx, hostcall.Call{Method: hostcall.ImageDelete, ID: im.rec.UID})
	var he *hostcall.Error
	if err != nil && (!errors.As(err, &he) || he.Code != hostcall.NotFound) {
		return err
	}
	m.forget(im)
	return nil
}

// leave begins a deletion; stay ends it, whether the image has gone or not.
func (im *image) leave(name, etag string) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	switch {
	case im.gone:
		return refuse.NotFound(Kind, name)
	case etag != "" && etag != im.proto().Etag:
		return refuse.Etag(Kind, name)
	case im.busy:
		return busy(name)
	}
	im.leaving, im.busy = true, true
	return nil
}

func (im *image) stay() {
	im.mu.Lock()
	im.leaving, im.busy = false, false
	im.mu.Unlock()
}

func busy(name string) error {
	return refuse.New(connect.CodeAborted, refuse.UploadBusy,
		name+" is being uploaded, checked or deleted by another call: wait for its end and read it again",
		&errdetails.ResourceInfo{ResourceType: Kind, ResourceName: name})
}

func inUse(name string, users []string) error {
	f := &errdetails.PreconditionFailure{}
	for _, u := range users {
		f.Violations = append(f.Violations, &errdetails.PreconditionFailure_Violation{Type: refuse.InUse, Subject: u, Description: u + " boots from " + name})
	}
	return refuse.New(connect.CodeFailedPrecondition, refuse.InUse,
		fmt.Sprintf("%s is booted from by %s: delete that first", name, strings.Join(users, ", ")), f)
}
