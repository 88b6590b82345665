package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"testing"
)

func sealed(t testing.TB, b []byte, pass string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, []byte(pass))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func open(b []byte, pass string) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(b), []byte(pass))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// openWith opens with a key that was made before: making one takes time, and is
// meant to.
func openWith(b []byte, s stream) ([]byte, error) {
	head := len(magic) + saltSize
	s.header = b[:head]
	return io.ReadAll(newReader(bytes.NewReader(b[head:]), &s))
}

func TestThereAndBack(t *testing.T) {
	key, err := newStream([]byte("key"), make([]byte, saltSize))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		want := make([]byte, size)
		rand.Read(want)
		s := *key
		var out bytes.Buffer
		out.Write(s.header)
		w := &Writer{s: &s, w: &out, buf: make([]byte, 0, chunkSize)}
		for b := want; len(b) > 0; b = b[min(len(b), 10_007):] { // in pieces that fit nothing
			w.Write(b[:min(len(b), 10_007)])
		}
		w.Close()
		got, err := openWith(out.Bytes(), *key)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %d, %v", size, len(got), err)
		}
	}
	want := []byte("all the way")
	if got, err := open(sealed(t, want, "key"), "key"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNothingButTheWholeOpens(t *testing.T) {
	b := sealed(t, make([]byte, 3*chunkSize), "key")
	head, chunk := len(magic)+saltSize, chunkSize+16
	flip := func(i int) []byte { c := bytes.Clone(b); c[i] ^= 1; return c }
	swapped := bytes.Clone(b)
	copy(swapped[head:], b[head+chunk:head+2*chunk])
	copy(swapped[head+chunk:], b[head:head+chunk])
	key, err := newStream([]byte("key"), b[len(magic):head])
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b    []byte
		pass string
		want error
	}{
		"other key":      {b, "kez", ErrPassphrase},
		"cut in a chunk": {b[:len(b)-1], "key", ErrPassphrase},
		"cut at a chunk": {b[:len(b)-chunk], "key", ErrPassphrase},
		"no chunk":       {b[:head], "key", ErrPassphrase},
		"appended":       {append(bytes.Clone(b), 0), "key", ErrPassphrase},
		"two at once":    {append(bytes.Clone(b), b[head:]...), "key", ErrPassphrase},
		"swapped":        {swapped, "key", ErrPassphrase},
		"salt":           {flip(len(magic)), "key", ErrPassphrase},
		"first chunk":    {flip(head), "key", ErrPassphrase},
		"last byte":      {flip(len(b) - 1), "key", ErrPassphrase},
		"magic":          {flip(0), "key", ErrNotBackup},
		"empty":          {nil, "key", ErrNotBackup},
	} {
		var err error
		if c.pass == "key" && c.want == ErrPassphrase {
			_, err = openWith(c.b, *key)
		} else {
			_, err = open(c.b, c.pass)
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
