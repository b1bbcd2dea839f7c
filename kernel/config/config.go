// Package config holds the kernel configuration as fragments by purpose. Those in common go into every kernel of
// ours, those in host and guest into one. A line is an option, its value and the reason for it.
package config

import "embed"

// Fragments are the files of this folder, as common/NAME.config, host/NAME.config and guest/NAME.config.
//
//go:embed common/*.config host/*.config guest/*.config
var Fragments embed.FS
