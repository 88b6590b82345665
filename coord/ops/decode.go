package ops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds nesting in a request.
const maxDepth = 16

// Decode is json.Unmarshal for JSON from clients. It refuses what two programs may
// understand differently: duplicate keys (also in another case), text that is not
// Unicode or holds a NUL, more than one value; and JSON that is nested deeper than 16.
// Its errors never repeat values, which may be secrets.
func Decode(b []byte, v any) error {
	if !utf8.Valid(b) {
		return errors.New("the request is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := walk(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value in the request")
	}
	if err := json.Unmarshal(b, v); err != nil {
		var t *json.UnmarshalTypeError
		if errors.As(err, &t) && t.Field != "" {
			return fmt.Errorf("field %q has the wrong type", strings.ToLower(t.Field))
		}
		return errors.New("a field of the request has the wrong form")
	}
	return nil
}

// walk reads one JSON value.
func walk(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return errors.New("the request is nested too deep")
	}
	t, err := d.Token()
	if err != nil {
		return errors.New("the request is not JSON")
	}
	switch t := t.(type) {
	case string:
		return text(t)
	case json.Delim:
		keys := map[string]bool{}
		for d.More() {
			if t == '{' {
				k, err := d.Token()
				if err != nil {
					return errors.New("the request is not JSON")
				}
				key, _ := k.(string)
				if err := text(key); err != nil {
					return err
				}
				if key = strings.ToLower(key); keys[key] {
					return errors.New("the request has a key twice")
				}
				keys[key] = true
			}
			if err := walk(d, depth+1); err != nil {
				return err
			}
		}
		if _, err := d.Token(); err != nil { // the closing delimiter
			return errors.New("the request is not JSON")
		}
	}
	return nil
}

// text refuses the mark that decoding leaves where there was no Unicode, such
// as half of a surrogate pair, and NUL.
func text(s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		return errors.New("the request holds text that is not Unicode")
	}
	if strings.ContainsRune(s, 0) {
		return errors.New("the request holds a NUL")
	}
	return nil
}
