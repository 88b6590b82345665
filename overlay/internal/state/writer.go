package state

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"weft/overlay/internal/pause"
	"weft/overlay/status"
)

// What a node receives takes effect at once and is saved afterwards, by a goroutine of
// its own: a disk that is slow, full or read-only must not delay the removal of a deleted
// device or of a right, nor the tunnels. A power cut in between costs another fetch. Only
// a join is different: the key is on disk before the server is asked, and the certificate
// before the node is a member. Its link to the relay may be made meanwhile, but nothing is
// said over it.

// File is a file that a Writer saves.
type File struct {
	Name string
	// What names its content for users.
	What string
	// Content returns the content to save; nil without an error leaves the file
	// unchanged. It is called in the goroutine that writes, with no lock of the Writer
	// held but the one that Pause takes.
	Content func() ([]byte, error)
}

// Writer saves files of a state directory. Its methods may be called from any goroutine.
type Writer struct {
	// constant after NewWriter
	files  []File
	write  func(file string, b []byte) error
	health *status.Warnings
	log    *slog.Logger
	wake   chan struct{} // capacity 1

	disk sync.Mutex // held while files are written or removed; taken before mu

	mu sync.Mutex
	// mu guards the following.
	due map[string]bool // files that must be written
}

// NewWriter makes a Writer of files. It writes them in this order with write, and reports
// failures to health.
func NewWriter(files []File, write func(file string, b []byte) error, health *status.Warnings, log *slog.Logger) *Writer {
	return &Writer{files: files, write: write, health: health, log: log, wake: make(chan struct{}, 1), due: map[string]bool{}}
}

// Mark schedules a file to be written, with its content at that time. It does not block.
func (k *Writer) Mark(file string) {
	k.mu.Lock()
	k.due[file] = true
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Pause waits until no file is being written, and prevents writing until resume is
// called.
func (k *Writer) Pause() (resume func()) {
	k.disk.Lock()
	return k.disk.Unlock
}

// Discard cancels all scheduled writing. A caller that has removed the files calls it
// before resume.
func (k *Writer) Discard() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.due)
}

// Run writes scheduled files until ctx ends. It does not write what is scheduled then:
// call Flush.
func (k *Writer) Run(ctx context.Context) {
	var wait time.Duration
	for {
		select {
		case <-k.wake:
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil {
			return
		}
		for k.Flush() != nil {
			wait = min(max(2*wait, time.Second), time.Minute)
			if !pause.Sleep(ctx, pause.Jitter(wait)) {
				return
			}
		}
		wait = 0
	}
}

// Flush writes the scheduled files. Those that fail stay scheduled and are reported to
// health.
func (k *Writer) Flush() error {
	var failed error
	var lost []string
	written := false
	for _, f := range k.files {
		k.mu.Lock()
		due := k.due[f.Name]
		delete(k.due, f.Name)
		k.mu.Unlock()
		if !due {
			continue
		}
		wrote, err := k.writeOne(f)
		written = written || wrote
		if err != nil {
			k.mu.Lock()
			k.due[f.Name] = true
			k.mu.Unlock()
			failed, lost = err, append(lost, f.What)
		}
	}
	if failed == nil {
		if written { // else nothing was found out about the disk
			k.health.Clear(status.CodeStateDirectory)
		}
		return nil
	}
	if !k.health.Has(status.CodeStateDirectory) { // log once; it is tried again and again
		k.log.Error("save state", "err", failed)
	}
	k.health.Set(status.CodeStateDirectory, fmt.Sprintf("%v; until that is fixed, a restart goes back to an older state of %s", failed, strings.Join(lost, ", ")))
	return failed
}

// writeOne writes a file unless its content is nil.
func (k *Writer) writeOne(f File) (written bool, err error) {
	defer k.Pause()()
	b, err := f.Content()
	if err != nil {
		return false, fmt.Errorf("save %s: %w", f.Name, err)
	}
	if b == nil {
		return false, nil
	}
	err = k.write(f.Name, b)
	return err == nil, err
}
