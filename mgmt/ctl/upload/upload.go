// Package upload brings a file onto a host as an image, by ashlar.v1's
// ImageService: digest first, then the content in pieces, going on where it
// was interrupted. Holes and zero blocks are sent as counts.
package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1/ashlarv1connect"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
)

// Progress is told how an upload gets on. Calls come from one goroutine.
type Progress interface {
	// Hashed says that so many bytes have been read for the digest.
	Hashed(done int64)
	// Sent says that so many bytes are on their way to the host or there.
	Sent(done int64)
	// Interrupted says why the stream broke; another attempt follows.
	Interrupted(err error)
}

// An Upload is a file and the name that it gets.
type Upload struct {
	Images ashlarv1connect.ImageServiceClient
	// ID is the image's name without `images/`.
	ID     string
	Source *Source
	// Retry is how long to go on trying without getting anywhere.
	Retry    time.Duration
	Progress Progress
}

// Run uploads. It returns the image, and whether it was there before.
func (u *Upload) Run(ctx context.Context) (img *ashlarv1.Image, existed bool, err error) {
	sum, err := u.Source.Digest(ctx, u.Progress.Hashed)
	if err != nil {
		return nil, false, fmt.Errorf("upload %s: %w", u.ID, err)
	}
	res, err := u.Images.CreateImage(ctx, connect.NewRequest(&ashlarv1.CreateImageRequest{
		ImageId: u.ID,
		Image:   &ashlarv1.Image{SizeBytes: u.Source.Size(), Sha256: sum},
	}))
	if err != nil {
		return nil, false, fmt.Errorf("upload %s: %w", u.ID, err)
	}
	img = res.Msg
	if img.GetState() == ashlarv1.Image_STATE_READY {
		return img, true, nil
	}
	if img, err = u.send(ctx, img); err != nil {
		return nil, false, fmt.Errorf("upload %s: %w", u.ID, err)
	}
	return img, false, nil
}

// send streams until the image is complete, starting over after breaks.
func (u *Upload) send(ctx context.Context, img *ashlarv1.Image) (*ashlarv1.Image, error) {
	var (
		back  client.Backoff
		since time.Time // of the first break without progress after it
		told  string
		best  = img.GetUploadedBytes()
	)
	for {
		got, err := u.stream(ctx, img.GetName(), img.GetUploadedBytes())
		if err == nil {
			return got, nil
		}
		if !repeatable(err) || ctx.Err() != nil {
			return nil, err
		}
		if text := err.Error(); text != told {
			u.Progress.Interrupted(err)
			told = text
		}
		if since.IsZero() {
			since = time.Now()
		}
		if img, err = u.ask(ctx, img.GetName(), &back, since); err != nil {
			return nil, err
		}
		if img.GetState() == ashlarv1.Image_STATE_READY {
			return img, nil
		}
		if n := img.GetUploadedBytes(); n > best || n == u.Source.Size() {
			// The host has more, or has everything and is checking it.
			best, since = n, time.Time{}
			back.Reset()
		}
	}
}

// repeatable tells whether a stream may be tried again: the connection broke,
// or (ABORTED) an earlier stream has not ended yet as the host sees it.
func repeatable(err error) bool {
	return fault.Transient(err) || connect.CodeOf(err) == connect.CodeAborted
}

// ask finds out where to go on, waiting for the host to come back until Retry
// has passed since the first break.
func (u *Upload) ask(ctx context.Context, name string, back *client.Backoff, since time.Time) (*ashlarv1.Image, error) {
	for {
		if err := back.Wait(ctx); err != nil {
			return nil, err
		}
		res, err := u.Images.GetImage(ctx, connect.NewRequest(&ashlarv1.GetImageRequest{Name: name}))
		late := time.Since(since) >= u.Retry
		switch {
		case err == nil && late:
			return nil, fmt.Errorf("no progress for %v; the same command goes on where this one stopped", u.Retry)
		case err == nil:
			return res.Msg, nil
		case late || !fault.Transient(err):
			return nil, err
		}
	}
}

// stream sends what is missing from off on and waits for the answer.
func (u *Upload) stream(ctx context.Context, name string, off int64) (*ashlarv1.Image, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st := u.Images.UploadImage(ctx)
	readErr := u.pieces(st, name, off)
	if readErr != nil {
		cancel() // the host keeps what it has
	}
	res, err := st.CloseAndReceive()
	switch {
	case readErr != nil:
		return nil, readErr
	case err != nil:
		return nil, err
	case res.Msg.GetState() != ashlarv1.Image_STATE_READY:
		return nil, fmt.Errorf("the host has %d of %d bytes and says it is done: upload again", res.Msg.GetUploadedBytes(), u.Source.Size())
	}
	return res.Msg, nil
}

// pieces sends everything from off on; at least the message that says which
// image is meant, so that one that has everything is checked. It ends early, without an error, where
// the host closed the stream: the answer says why.
func (u *Upload) pieces(st *connect.ClientStreamForClient[ashlarv1.UploadImageRequest, ashlarv1.Image], name string, off int64) error {
	buf := make([]byte, maxPiece)
	for first := true; first || off < u.Source.Size(); first = false {
		req := &ashlarv1.UploadImageRequest{Name: name, Offset: off}
		if off < u.Source.Size() {
			p, err := u.Source.next(off, buf)
			if err != nil {
				return err
			}
			off += p.fill(req)
		}
		if err := st.Send(req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		u.Progress.Sent(off)
	}
	return nil
}

// fill puts the piece into req and returns its length.
func (p piece) fill(req *ashlarv1.UploadImageRequest) int64 {
	if p.data == nil {
		req.Piece = &ashlarv1.UploadImageRequest_Zeroes{Zeroes: p.zeroes}
		return p.zeroes
	}
	req.Piece = &ashlarv1.UploadImageRequest_Data{Data: p.data}
	return int64(len(p.data))
}
