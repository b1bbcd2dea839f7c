package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// MaxPiece is the most data in one message of an upload, in bytes.
	MaxPiece = 1 << 20
	// saveEvery is how many bytes may come before they are synced and counted in
	// the store: so much has to be sent again at most after a crash.
	saveEvery = 8 << 20
	// tellEvery is how often watchers hear of an upload's progress.
	tellEvery = time.Second
)

// An upload is one stream of pieces into one image.
type upload struct {
	m      *Manager
	im     *image
	name   string
	f      *os.File
	pos    int64 // where the next piece starts
	placed bool  // a piece has come
	saved  int64 // what the store counts
	told   time.Time
}

// Upload receives pieces until recv returns io.EOF or the image is complete
// (ImageService.UploadImage).
func (m *Manager) Upload(ctx context.Context, recv func() (*ashlarv1.UploadImageRequest, error)) (*ashlarv1.Image, error) {
	first, err := recv()
	if errors.Is(err, io.EOF) {
		return nil, refuse.Field("name", "is missing: the first message names the image")
	}
	if err != nil {
		return nil, err
	}
	im, err := m.find("name", first.Name)
	if err != nil {
		return nil, err
	}
	if err := im.acquire(first.Name); err != nil {
		return nil, err
	}
	defer im.release()
	u := &upload{m: m, im: im, name: first.Name}
	if err := u.open(ctx); err != nil {
		return nil, err
	}
	defer u.f.Close()
	return u.run(ctx, first, recv)
}

// acquire makes this call the only one that works on the image.
func (im *image) acquire(name string) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	switch {
	case im.gone:
		return refuse.NotFound(Kind, name)
	case im.busy, im.rec.Phase != store.Ready: // Reconcile ends what is half made or deleted
		return busy(name)
	case im.rec.Complete:
		return refuse.Precondition(refuse.WrongState, name, name+" is complete and is never changed again: to replace it, delete it or choose another name")
	}
	im.busy = true
	return nil
}

func (im *image) release() {
	im.mu.Lock()
	im.busy = false
	im.mu.Unlock()
}

// open asks core for the file; one that is missing (control or core ended while it
// was being made) is made anew, empty.
func (u *upload) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	f, err := u.m.core.File(ctx, hostcall.Call{Method: hostcall.ImageOpen, ID: u.im.rec.UID})
	var he *hostcall.Error
	if errors.As(err, &he) && he.Code == hostcall.NotFound {
		f, err = u.m.core.File(ctx, hostcall.Call{Method: hostcall.ImageCreate, ID: u.im.rec.UID, Size: u.im.rec.Size})
		if err == nil {
			err = u.rewind(0)
		}
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return refuse.Core(err, u.name, nil)
	}
	u.f = f
	u.im.mu.Lock()
	u.pos = u.im.live
	u.saved = u.im.rec.Uploaded
	u.im.mu.Unlock()
	return nil
}

func (u *upload) run(ctx context.Context, first *ashlarv1.UploadImageRequest, recv func() (*ashlarv1.UploadImageRequest, error)) (*ashlarv1.Image, error) {
	err := u.piece(first)
	for err == nil && u.pos < u.im.rec.Size {
		var next *ashlarv1.UploadImageRequest
		if next, err = recv(); err == nil {
			err = u.piece(next)
		}
	}
	if err != nil { // io.EOF too: the client has sent what it wanted to
		if serr := u.checkpoint(); serr != nil {
			return nil, serr
		}
		u.m.publish(u.im)
		if !errors.Is(err, io.EOF) {
			return nil, err
		}
		return u.m.Get(u.name)
	}
	if err := u.checkpoint(); err != nil {
		return nil, err
	}
	u.m.publish(u.im)
	// The check is the host's work: it goes on when the client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTime(u.im.rec.Size))
	defer cancel()
	if err := u.finish(ctx); err != nil {
		return nil, err
	}
	return u.m.Get(u.name)
}

// place checks where a piece starts. The first one may go back to an earlier place.
func (u *upload) place(offset int64) error {
	if u.placed {
		if offset != u.pos {
			return refuse.Field("offset", "is %d, the last piece ended at %d: send pieces in order, without gaps", offset, u.pos)
		}
		return nil
	}
	if offset < 0 || offset > u.pos {
		return refuse.Field("offset", "is %d: %s has %d bytes so far, go on there", offset, u.name, u.pos)
	}
	u.placed = true
	if offset == u.pos {
		return nil
	}
	if err := u.rewind(offset); err != nil {
		return refuse.Internal(err)
	}
	return nil
}

// rewind forgets what is after pos, before it is written over.
func (u *upload) rewind(pos int64) error {
	u.im.mu.Lock()
	u.im.rec.Uploaded = min(u.im.rec.Uploaded, pos)
	u.im.live = pos
	u.saved = u.im.rec.Uploaded
	u.im.mu.Unlock()
	u.pos = pos
	return u.m.save(u.im)
}

// piece writes one piece.
func (u *upload) piece(p *ashlarv1.UploadImageRequest) error {
	if p.Name != "" && p.Name != u.name {
		return refuse.Field("name", "is %q, the first message said %s: send one image per call", p.Name, u.name)
	}
	if p.Piece == nil {
		return nil
	}
	if err := u.place(p.Offset); err != nil {
		return err
	}
	var (
		n     int64
		field string
		write func() error
	)
	switch piece := p.Piece.(type) {
	case *ashlarv1.UploadImageRequest_Data:
		if len(piece.Data) > MaxPiece {
			return refuse.Field("data", "has %d bytes: at most %d in one message", len(piece.Data), MaxPiece)
		}
		field, n = "data", int64(len(piece.Data))
		write = func() error { _, err := u.f.WriteAt(piece.Data, u.pos); return err }
	case *ashlarv1.UploadImageRequest_Zeroes:
		if piece.Zeroes < 0 {
			return refuse.Field("zeroes", "is %d: 0 or more", piece.Zeroes)
		}
		field, n = "zeroes", piece.Zeroes
		write = func() error { return zeroAt(u.f, u.pos, n) }
	}
	if n > u.im.rec.Size-u.pos {
		return refuse.Field(field, "goes %d bytes beyond size_bytes (%d): check what you announced", n-(u.im.rec.Size-u.pos), u.im.rec.Size)
	}
	if n == 0 {
		return nil
	}
	if err := write(); err != nil {
		return u.writeError(err)
	}
	return u.advance(n)
}

// advance counts n bytes more.
func (u *upload) advance(n int64) error {
	u.pos += n
	u.im.mu.Lock()
	u.im.live = u.pos
	u.im.mu.Unlock()
	if u.pos-u.saved >= saveEvery {
		if err := u.checkpoint(); err != nil {
			return err
		}
	}
	if now := time.Now(); now.Sub(u.told) >= tellEvery {
		u.told = now
		u.m.publish(u.im)
	}
	return nil
}

// checkpoint makes the disk have all that came, and then counts it in the store.
func (u *upload) checkpoint() error {
	if u.pos == u.saved {
		return nil
	}
	if err := unix.Fdatasync(int(u.f.Fd())); err != nil {
		return u.writeError(err)
	}
	u.im.mu.Lock()
	u.im.rec.Uploaded = u.pos
	u.im.mu.Unlock()
	if err := u.m.save(u.im); err != nil {
		return refuse.Internal(err)
	}
	u.saved = u.pos
	return nil
}

func (u *upload) writeError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return refuse.New(connect.CodeResourceExhausted, refuse.PoolFull,
			"the pool is full: delete images or guests, then go on with the upload",
			&errdetails.ResourceInfo{ResourceType: Kind, ResourceName: u.name})
	}
	return refuse.Internal(fmt.Errorf("write %s: %w", u.name, err))
}

// zeroAt makes n bytes at pos read as zero, by a hole where the file system can.
func zeroAt(f *os.File, pos, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, pos, n)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zeroes := make([]byte, min(n, MaxPiece))
	for n > 0 {
		chunk := zeroes[:min(n, int64(len(zeroes)))]
		if _, err := f.WriteAt(chunk, pos); err != nil {
			return err
		}
		pos, n = pos+int64(len(chunk)), n-int64(len(chunk))
	}
	return nil
}

// checkTime bounds the check of an image of size bytes.
func checkTime(size int64) time.Duration {
	return slowTimeout + time.Duration(size/slowDisk)*time.Second
}

// finish checks the digest of what is on disk: the image becomes READY, or goes.
func (u *upload) finish(ctx context.Context) error {
	sum, err := digest(ctx, u.f, u.im.rec.Size)
	if err != nil {
		return refuse.Internal(fmt.Errorf("read %s back: %w", u.name, err))
	}
	if sum != u.im.rec.SHA256 {
		return u.damaged(ctx, sum)
	}
	if _, err := u.m.core.Do(ctx, hostcall.Call{Method: hostcall.ImageSeal, ID: u.im.rec.UID}); err != nil {
		return refuse.Core(err, u.name, nil)
	}
	return u.m.complete(u.im)
}

// complete notes that core has sealed the image.
func (m *Manager) complete(im *image) error {
	im.mu.Lock()
	im.rec.Complete, im.rec.Uploaded, im.live = true, im.rec.Size, im.rec.Size
	im.mu.Unlock()
	if err := m.save(im); err != nil {
		return refuse.Internal(err)
	}
	m.publish(im)
	m.log.Info("image complete", "image", im.rec.ID, "bytes", im.rec.Size)
	return nil
}

// damaged deletes an image whose content is not what was announced.
func (u *upload) damaged(ctx context.Context, sum string) error {
	u.im.mu.Lock()
	u.im.rec.Phase = store.Deleting
	u.im.mu.Unlock()
	err := u.m.save(u.im)
	if err == nil {
		err = u.m.remove(ctx, u.im)
	}
	if err != nil {
		u.m.log.Warn("damaged image not yet deleted", "image", u.im.rec.ID, "error", err)
	}
	return refuse.New(connect.CodeDataLoss, refuse.DigestMismatch,
		fmt.Sprintf("%s has SHA-256 %s on the host, %s was announced: it has been deleted, upload it again", u.name, sum, u.im.rec.SHA256),
		&errdetails.ResourceInfo{ResourceType: Kind, ResourceName: u.name})
}

// digest reads size bytes of f from the disk, as far as the kernel lets itself be
// told to.
func digest(ctx context.Context, f *os.File, size int64) (string, error) {
	// Only advice: what is still cached is what the disk has, synced before.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	h := sha256.New()
	buf := make([]byte, MaxPiece)
	for pos := int64(0); pos < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-pos)], pos)
		h.Write(buf[:n])
		pos += int64(n)
		if err != nil && (!errors.Is(err, io.EOF) || pos < size) {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
