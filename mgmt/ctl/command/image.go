package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/client"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/upload"
)

// uploadRetry is how long an upload goes on trying without progress.
const uploadRetry = 2 * time.Minute

// imageCommand holds what manages images on a host, and prepares the image of
// a host.
func (a *app) imageCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the images on the host",
		Long:    "List the images on the host.",
		Example: "  ashlarctl image list\n  ashlarctl image list -o json",
		Args:    cobra.NoArgs,
		RunE: a.withHost(func(ctx context.Context, h *client.Host, _ []string) error {
			is, err := listImages(ctx, h)
			if err != nil {
				return err
			}
			return render.List(a.Out, a.format, is, func() *render.Rows { return render.Images(is) })
		}),
	}
	get := &cobra.Command{
		Use: "get NAME...", Short: "Show images",
		Long:              "Show everything about images on the host.",
		Example:           "  ashlarctl image get debian",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return show(a, names, render.Image, func(n string) (*ashlarv1.Image, error) {
				return message(h.Images.GetImage(ctx, connect.NewRequest(&ashlarv1.GetImageRequest{Name: resource(images, n)})))("get image " + n)
			})
		}),
	}
	del := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete images from the host",
		Long:              "Delete images from the host. Disks that were made from them stay whole; what a virtual machine boots from is not deleted.",
		Example:           "  ashlarctl image delete debian",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages(),
		RunE: a.withHost(func(ctx context.Context, h *client.Host, names []string) error {
			return forEach(names, func(n string) error {
				_, err := h.Images.DeleteImage(ctx, connect.NewRequest(&ashlarv1.DeleteImageRequest{Name: resource(images, n)}))
				if err != nil {
					return fmt.Errorf("delete image %s: %w", n, err)
				}
				a.say("image %s is deleted", render.ID(n))
				return nil
			})
		}),
	}
	a.formatFlag(list, get)
	return group("image", "Manage the images of guests, and prepare the image of a host",
		"upload, list, get and delete are about images on a host: kernels, initramfs archives and disks of guests. configure is about the image that a host itself boots from.",
		"  ashlarctl image upload debian.img --name debian\n  ashlarctl image configure out/ashlar.img --config ashlar.yaml",
		a.imageUpload(), list, get, del, a.imageConfigure())
}

// listImages gets all images.
func listImages(ctx context.Context, h *client.Host) ([]*ashlarv1.Image, error) {
	return pages("list images", func(token string) ([]*ashlarv1.Image, string, error) {
		res, err := h.Images.ListImages(ctx, connect.NewRequest(&ashlarv1.ListImagesRequest{PageSize: pageSize, PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return res.Msg.GetImages(), res.Msg.GetNextPageToken(), nil
	})
}

const uploadLong = `Upload a file or block device as an image: a kernel, an initramfs, or a
raw disk. Its SHA-256 is taken first, and checked by the host at the end. Holes
and blocks of zeroes cost next to nothing.

An upload that is interrupted goes on by itself, and where ashlarctl was ended,
by the same command again. If the image is there already, nothing is sent.`

func (a *app) imageUpload() *cobra.Command {
	var name string
	var quiet bool
	cmd := &cobra.Command{
		Use: "upload FILE", Short: "Upload an image to the host",
		Long:    uploadLong,
		Example: "  ashlarctl image upload /boot/vmlinuz-6.1 --name vmlinuz\n  ashlarctl image upload debian.img",
		Args:    cobra.ExactArgs(1),
	}
	cmd.RunE = a.withHost(func(ctx context.Context, h *client.Host, args []string) error {
		retry := uploadRetry
		if cmd.Flags().Changed("retry") {
			retry = a.retry
		}
		return a.upload(ctx, h, args[0], name, retry, quiet)
	})
	cmd.Flags().StringVar(&name, "name", "", "name of the image (default: made from the file's name)")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "show no progress")
	a.must(cmd.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions))
	a.formatFlag(cmd)
	return cmd
}

// upload brings a file onto the host.
func (a *app) upload(ctx context.Context, h *client.Host, file, id string, retry time.Duration, quiet bool) error {
	a.field = fieldTable{"imageId": "--name", "sizeBytes": "FILE", "sha256": "FILE"}.name
	if id == "" {
		if id = imageID(file); id == "" {
			return fault.With(fault.Usage, fmt.Errorf("no image name can be made of %s: give one with --name", file))
		}
	}
	src, err := upload.Open(file)
	if err != nil {
		return fmt.Errorf("upload %s: %w", id, err)
	}
	defer func() { _ = src.Close() }() // only read
	id = bareID(images, id)
	var p upload.Reporter = upload.Silent{}
	switch {
	case quiet:
	case a.errTerminal():
		p = upload.NewBars(a.Err, id, src.Size())
	default:
		p = upload.NewLines(a.Err, id, src.Size())
	}
	u := &upload.Upload{Images: h.Images, ID: id, Source: src, Retry: retry, Progress: p}
	img, existed, err := u.Run(ctx)
	p.Close()
	if err != nil {
		if ctx.Err() != nil {
			a.note("The same command goes on where this one stopped.")
		}
		return err
	}
	text := fmt.Sprintf("image %s is uploaded (%s)", id, size.Format(img.GetSizeBytes()))
	if existed {
		text = fmt.Sprintf("image %s is on the host already, with the same content (%s)", id, size.Format(img.GetSizeBytes()))
	}
	return render.Message(a.Out, a.format, img, func() *render.Rows { return &render.Rows{Lines: [][]string{{text}}} })
}

// imageID makes an image's name of a file's: lower case, what is not allowed
// becomes `-`, the endings .img and .raw are left out.
func imageID(file string) string {
	base := strings.ToLower(filepath.Base(file))
	base = strings.TrimSuffix(strings.TrimSuffix(base, ".img"), ".raw")
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '-'
	}, base)
	id = strings.TrimLeft(id, "-.")
	return strings.TrimRight(id[:min(len(id), 63)], "-.")
}

func (a *app) imageConfigure() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "configure IMAGE --config FILE", Short: "Put a configuration document into the image of a host",
		Long: `Put a configuration document into the image that a host boots from: a file that
is then written to a stick with dd, or the stick itself. The document is checked
first, and every error named with its line; nothing is written where there is one.`,
		Example: "  ashlarctl image configure out/ashlar.img --config ashlar.yaml\n  sudo ashlarctl image configure /dev/sdX --config ashlar.yaml",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return a.configure(args[0], file) },
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration document (required)")
	a.must(cmd.MarkFlagRequired("config"))
	a.must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	return cmd
}

// readDocument reads a configuration document.
func readDocument(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return b, nil
}
