package tun

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// devices returns two devices, each of which reads what the other writes.
func devices(t *testing.T) (a, b *kernelDevice) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range []**kernelDevice{&a, &b} {
		if *d, err = newDevice(fds[i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*d).close() })
	}
	return a, b
}

// TestBriefCalls: with single packets the scheduler learns of hardly any call, and of
// traffic without a pause, or of long packets, it does.
func TestBriefCalls(t *testing.T) {
	a, b := devices(t)
	var h offload
	buf, rest := make([]byte, inPlace), make([]byte, maxWhole)
	w := &vector{}
	write := func(pkt []byte) (brief bool) {
		t.Helper()
		w.parts = append(w.parts[:0], pkt)
		if err := a.write(w); err != nil {
			t.Fatal(err)
		}
		return w.state.(*out).pace > 0
	}
	read := func(pkt []byte) (brief bool) {
		t.Helper()
		brief = b.pace.brief()
		n, err := b.read(&h, buf, rest, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := append(bytes.Clone(buf[:min(n, inPlace)]), rest[:n-min(n, inPlace)]...); !bytes.Equal(got, pkt) {
			t.Fatalf("read %d bytes, want %d", n, len(pkt))
		}
		return brief
	}
	pause := func() {
		t.Helper()
		if _, err := b.read(&h, buf, rest, false); !errors.Is(err, errNothing) {
			t.Fatalf("read without a packet: %v", err)
		}
		b.wait = true
		if err := b.conn.Control(func(fd uintptr) {
			if b.readv(fd) {
				t.Error("read does not wait for a packet")
			}
		}); err != nil {
			t.Fatal(err)
		}
	}

	short, long := bytes.Repeat([]byte{1}, 90), bytes.Repeat([]byte{2}, 20<<10)
	told := 0
	for range 1000 {
		pause()
		if !write(short) {
			told++
		}
		if !read(short) {
			t.Fatal("a read after a pause is not brief")
		}
	}
	if told == 0 || told > 1000/50 {
		t.Errorf("%d of 1000 writes of short packets are not brief", told)
	}

	told = 0
	for i := range 200 {
		write(short)
		if brief := read(short); !brief {
			told++
		} else if i > 100 {
			t.Fatalf("read %d without a pause is brief", i)
		}
	}
	if told < 100 {
		t.Errorf("%d of 200 reads without a pause are not brief", told)
	}

	pause()
	if write(long) {
		t.Error("a write of 20 KB is brief")
	}
	read(long)
	write(short)
	if read(short) {
		t.Error("a read after 20 KB without a pause is brief")
	}
}
