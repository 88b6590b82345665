package osdns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// watcher reports writes to the files that we manage (inotify). Nothing runs in
// between.
type watcher struct {
	// Constant after newWatcher.
	file *os.File
	tell func(event)
	done chan struct{}

	mu sync.Mutex
	// mu guards the following.
	names map[int32]string // by watch: the relevant name in a directory, "" for any
}

// fileEvents are the events of another program writing a file.
const fileEvents = unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF

func newWatcher(tell func(event)) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "inotify"), tell: tell, done: make(chan struct{}), names: map[int32]string{}}
	go w.readLoop()
	return w, nil
}

// add watches a directory or a file. It watches a file by its directory, since it may
// be replaced, and itself, since it may be a mount point. Adding it twice does nothing.
func (w *watcher) add(path string) {
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		w.addOne(path, "", fileEvents)
		return
	}
	w.addOne(filepath.Dir(path), filepath.Base(path), fileEvents)
	w.addOne(path, "", unix.IN_CLOSE_WRITE|unix.IN_DONT_FOLLOW)
}

func (w *watcher) addOne(path, name string, mask uint32) {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	conn.Control(func(fd uintptr) {
		wd, err := unix.InotifyAddWatch(int(fd), path, mask)
		if err != nil {
			return
		}
		if old, ok := w.names[int32(wd)]; ok && old != name {
			name = "" // two relevant names in one directory
		}
		w.names[int32(wd)] = name
	})
}

func (w *watcher) readLoop() {
	defer close(w.done)
	b := make([]byte, 16<<10)
	for {
		n, err := w.file.Read(b)
		if err != nil {
			return
		}
		if w.counts(b[:n]) {
			w.tell(eventFile)
		}
	}
}

// counts reports whether an event in b is about one of our files.
func (w *watcher) counts(b []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	yes := false
	for len(b) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(b[0:]))
		mask := binary.NativeEndian.Uint32(b[4:])
		size := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if size > len(b) {
			return yes
		}
		name := string(bytes.TrimRight(b[:size], "\x00"))
		b = b[size:]
		if mask&unix.IN_IGNORED != 0 { // that file is gone
			delete(w.names, wd)
			continue
		}
		want, ok := w.names[wd]
		if ok && (want == "" || want == name) || mask&unix.IN_Q_OVERFLOW != 0 {
			yes = true
		}
	}
	return yes
}

func (w *watcher) close() {
	w.file.Close()
	<-w.done
}
