package image

import (
	"context"

	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// Reconcile compares what is recorded with what core has, and ends what an earlier run
// has left half done. It calls core; one Reconcile runs at a time.
func (m *Manager) Reconcile(ctx context.Context, have []hostcall.ImageStatus) {
	onDisk := make(map[string]hostcall.ImageStatus, len(have))
	for _, st := range have {
		onDisk[st.ID] = st
	}
	m.mu.Lock()
	all := make([]*image, 0, len(m.byID))
	for _, im := range m.byID {
		all = append(all, im)
	}
	m.mu.Unlock()
	for _, im := range all {
		st, ok := onDisk[im.rec.UID]
		delete(onDisk, im.rec.UID)
		m.settle(ctx, im, st, ok)
	}
	for id, st := range onDisk {
		if m.once(id) {
			m.log.Warn("core has an image that the store does not know; it is left alone", "uid", id, "bytes", st.Size)
		}
	}
}

// once reports whether there has been no complaint about uid yet.
func (m *Manager) once(uid string) bool {
	first := !m.told[uid]
	m.told[uid] = true
	return first
}

func (m *Manager) settle(ctx context.Context, im *image, st hostcall.ImageStatus, onDisk bool) {
	im.mu.Lock()
	rec := im.rec
	if im.busy || im.gone { // its call ends it
		im.mu.Unlock()
		return
	}
	im.busy = true
	im.mu.Unlock()
	defer im.release()
	switch {
	case rec.Phase == store.Creating, rec.Phase == store.Deleting:
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		if err := m.remove(ctx, im); err != nil {
			m.log.Warn("half-made image not yet removed", "image", rec.ID, "error", err)
		}
	case rec.Complete && !onDisk && m.once(rec.UID):
		m.log.Error("the file of an image is gone: delete the image and upload it again", "image", rec.ID)
	case !rec.Complete && onDisk && st.Sealed:
		// Sealed means checked: only the note of it was lost.
		if err := m.complete(im); err != nil {
			m.log.Error("image not stored", "image", rec.ID, "error", err)
		}
	}
}
