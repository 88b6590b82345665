package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"weft/overlay/fips"
)

// forms are the two forms of a backup.
var forms = map[string]string{"outside FIPS mode": magic, "FIPS mode": magicFIPS}

func sealed(t testing.TB, form string, b []byte, pass string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := newWriter(&out, form, []byte(pass))
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
	r, err := newReaderIn(false, bytes.NewReader(b), []byte(pass))
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
	for name, form := range forms {
		t.Run(name, func(t *testing.T) { thereAndBack(t, form) })
	}
}

func thereAndBack(t *testing.T, form string) {
	needs(t, form)
	key, err := newStream(form, []byte("key"), make([]byte, saltSize))
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
	if got, err := open(sealed(t, form, want, "key"), "key"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNothingButTheWholeOpens(t *testing.T) {
	for name, form := range forms {
		t.Run(name, func(t *testing.T) { nothingButTheWhole(t, form) })
	}
}

func nothingButTheWhole(t *testing.T, form string) {
	needs(t, form)
	b := sealed(t, form, make([]byte, 3*chunkSize), "key")
	key, err := newStream(form, []byte("key"), b[len(magic):len(magic)+saltSize])
	if err != nil {
		t.Fatal(err)
	}
	head, chunk := len(magic)+saltSize, chunkSize+key.aead.Overhead()
	flip := func(i int) []byte { c := bytes.Clone(b); c[i] ^= 1; return c }
	swapped := bytes.Clone(b)
	copy(swapped[head:], b[head+chunk:head+2*chunk])
	copy(swapped[head+chunk:], b[head:head+chunk])
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
		"magic":          {flip(1), "key", ErrNotBackup},
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

// needs skips what FIPS mode, when it is enforced, does not let a process do at all.
func needs(t *testing.T, form string) {
	if form == magic && fips.Current() == fips.Only {
		t.Skip("ChaCha20-Poly1305 is refused when FIPS mode is enforced")
	}
}

// FIPS mode reads what it has made, and says of other backups what they are.
func TestFIPSModeReadsItsOwn(t *testing.T) {
	want := []byte("all the way")
	r, err := newReaderIn(true, bytes.NewReader(sealed(t, magicFIPS, want, "key")), []byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	other := append([]byte(magic), make([]byte, saltSize+chunkSize)...)
	if _, err := newReaderIn(true, bytes.NewReader(other), []byte("key")); !errors.Is(err, ErrNotFIPS) {
		t.Error(err)
	}
}

// A backup that Python made (cryptography's AESGCM, hashlib.pbkdf2_hmac), so that the form
// is what the package documentation says.
func TestPythonAgrees(t *testing.T) {
	b, err := hex.DecodeString("776566742d6261636b75702f320a000102030405060708090a0b0c0d0e0f6465666768696a6b6c6d6e6fe781ebe79c6e9416e4ae75800176d4efcfed495427faebcaf25f4ee95c91")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := open(b, "correct horse battery staple"); err != nil || string(got) != "made elsewhere" {
		t.Errorf("%q, %v", got, err)
	}
}
