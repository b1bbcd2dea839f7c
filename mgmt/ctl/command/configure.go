package command

import (
	"github.com/ashlar-hv/ashlar/image-build/configure"
)

// configure puts a document into an image.
func (a *app) configure(image, file string) error {
	b, err := readDocument(file)
	if err != nil {
		return err
	}
	if err := a.validate(file, b); err != nil {
		return err
	}
	if err := configure.Configure(image, b); err != nil {
		return err
	}
	a.say("%s now has the configuration in %s", image, file)
	return nil
}
