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

// What a node learns holds at once, and is written to the state directory after
// that, by a goroutine of its own: a disk that is slow, full or read-only must not
// put off that a deleted device is dropped or a right is withdrawn, nor hold up
// the tunnels. A power cut in between costs another fetch. Only a join is the
// other way round: its key and certificate are on disk before anybody goes by them.

// Kept is a file that a Keeper writes.
type Kept struct {
	File string
	// What is what people call its content.
	What string
	// Content is what it is to hold now; nil without error has it left as it is.
	// It is called in the goroutine that writes, with nothing of the Keeper's
	// locked but what Pause holds.
	Content func() ([]byte, error)
}

// Keeper writes files of a state directory. Its methods may be called from any
// goroutine.
type Keeper struct {
	// constant after NewKeeper
	files  []Kept
	write  func(file string, b []byte) error
	health *status.Warnings
	log    *slog.Logger
	wake   chan struct{} // capacity 1

	disk sync.Mutex // held while files are written or removed; taken first

	mu sync.Mutex
	// mu guards the following.
	due map[string]bool // files that are to be written
}

// NewKeeper makes a Keeper of files, which are written in this order by write. What
// cannot be written is said to health.
func NewKeeper(files []Kept, write func(file string, b []byte) error, health *status.Warnings, log *slog.Logger) *Keeper {
	return &Keeper{files: files, write: write, health: health, log: log, wake: make(chan struct{}, 1), due: map[string]bool{}}
}

// Keep has a file written with what it is to hold by then. It does not wait.
func (k *Keeper) Keep(file string) {
	k.mu.Lock()
	k.due[file] = true
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Pause waits for what is being written, and has nothing written until resume is
// called.
func (k *Keeper) Pause() (resume func()) {
	k.disk.Lock()
	return k.disk.Unlock
}

// Forget forgets what was to be written: nobody wants it any more. It is for who has
// removed the files, before resume.
func (k *Keeper) Forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.due)
}

// Run is the goroutine that writes, until ctx ends. What is left then is
// for Now.
func (k *Keeper) Run(ctx context.Context) {
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
		for k.Now() != nil {
			wait = min(max(2*wait, time.Second), time.Minute)
			if !pause.Sleep(ctx, pause.Jitter(wait)) {
				return
			}
		}
		wait = 0
	}
}

// Now writes what is due. What fails stays due, and health says so.
func (k *Keeper) Now() error {
	var failed error
	var lost []string
	written := false
	for _, f := range k.files {
		k.mu.Lock()
		due := k.due[f.File]
		delete(k.due, f.File)
		k.mu.Unlock()
		if !due {
			continue
		}
		wrote, err := k.writeOne(f)
		written = written || wrote
		if err != nil {
			k.mu.Lock()
			k.due[f.File] = true
			k.mu.Unlock()
			failed, lost = err, append(lost, f.What)
		}
	}
	if failed == nil {
		if written { // else nothing is known of the disk
			k.health.Clear(status.CodeStateDirectory)
		}
		return nil
	}
	if !k.health.Has(status.CodeStateDirectory) { // it is tried again and again
		k.log.Error("keep what was learnt", "err", failed)
	}
	k.health.Set(status.CodeStateDirectory, fmt.Sprintf("%v; until that is mended, a restart goes back to an older state of %s", failed, strings.Join(lost, ", ")))
	return failed
}

// writeOne writes a file, unless it is to be left as it is.
func (k *Keeper) writeOne(f Kept) (written bool, err error) {
	defer k.Pause()()
	b, err := f.Content()
	if err != nil {
		return false, fmt.Errorf("save %s: %w", f.File, err)
	}
	if b == nil {
		return false, nil
	}
	err = k.write(f.File, b)
	return err == nil, err
}
