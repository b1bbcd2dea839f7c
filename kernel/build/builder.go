package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ashlar-hv/ashlar/kernel/kconfig"
	"github.com/ashlar-hv/ashlar/kernel/recipe"
)

// builder makes the artefacts of one input, or finds them in the cache.
type builder struct {
	in    recipe.Input
	hash  string
	cache string
	jobs  int
	keep  bool
	out   io.Writer
	tty   bool // out is a terminal: progress stays on one line
	again bool // the last line was progress
}

func (b *builder) say(format string, args ...any) {
	b.print("", "\n", format, args...)
}

// sayAgain says something that the next line replaces, where out can do that.
func (b *builder) sayAgain(format string, args ...any) {
	if !b.tty {
		b.say(format, args...)
		return
	}
	b.print(eraseLine, "", format, args...)
	b.again = true
}

// eraseLine takes a terminal to the start of an empty line.
const eraseLine = "\r\x1b[K"

func (b *builder) print(before, after, format string, args ...any) {
	if b.again {
		before = eraseLine
		b.again = false
	}
	fmt.Fprintf(b.out, "%skernel %s: %s%s", before, b.in.Profile.Name, fmt.Sprintf(format, args...), after)
}

// artefacts is the folder in the cache that holds what the input gives. A folder that exists is complete: it is made
// under another name and renamed.
func (b *builder) artefacts(ctx context.Context) (string, error) {
	dir := filepath.Join(b.cache, b.hash)
	if exists(dir) {
		b.say("taken from the cache, %s", b.hash)
		return dir, nil
	}
	unlock, err := lock(ctx, filepath.Join(b.cache, b.in.Profile.Name+".lock"), func() {
		b.say("another build is at work, waiting for it")
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) { // made while we waited
		b.say("taken from the cache, %s", b.hash)
		return dir, nil
	}
	return dir, b.build(ctx, dir)
}

// build makes dir. It holds the lock of the profile, and with it the profile's tree.
func (b *builder) build(ctx context.Context, dir string) (err error) {
	work := filepath.Join(b.cache, b.in.Profile.Name+".tree")
	log, err := os.Create(filepath.Join(b.cache, b.in.Profile.Name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	defer func() {
		// A wrong configuration says itself what is wrong; a tool says it in the log.
		if err != nil && ctx.Err() == nil && !errors.As(err, new(kconfig.Mismatches)) {
			err = fmt.Errorf("%w\n%s\nthe whole log is %s", err, tail(log.Name(), 20), log.Name())
		}
		if !b.keep {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	lines := newProgress(b, log)
	tree := recipe.Tree{Dir: work, Log: lines}
	steps := []struct {
		name string
		do   func() error
	}{
		{"unpacking " + b.in.Source.Name(), func() error { return tree.Unpack(ctx, b.in.Source) }},
		{fmt.Sprintf("configuring, %d options asked for", len(b.in.Options)), func() error { return tree.Configure(ctx, b.in.Options) }},
		{fmt.Sprintf("compiling, %d jobs", b.jobs), func() error { return lines.during(func() error { return tree.Compile(ctx, b.jobs) }) }},
		{"keeping in the cache as " + b.hash, func() error { return b.collect(ctx, tree, dir) }},
	}
	for _, s := range steps {
		start := time.Now()
		b.say("%s", s.name)
		if err := s.do(); err != nil {
			return err
		}
		b.say("done in %s", time.Since(start).Round(100*time.Millisecond))
	}
	return nil
}

func (b *builder) collect(ctx context.Context, tree recipe.Tree, dir string) error {
	temp, err := os.MkdirTemp(b.cache, b.hash+".")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := tree.Collect(ctx, b.in, temp); err != nil {
		return err
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return err
	}
	return os.Rename(temp, dir)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
