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

// Decode is json.Unmarshal for JSON from clients. It refuses JSON that two programs may
// understand differently: duplicate keys (also if only their case differs), text that is not
// valid Unicode or contains a NUL, and more than one value. It also refuses JSON that is
// nested deeper than 16 levels. Its errors never repeat values, which may be secrets.
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

// walk reads and checks one JSON value.
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

// text refuses text with a NUL, or with U+FFFD, which the decoder puts in place of invalid
// Unicode such as half of a surrogate pair.
func text(s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		return errors.New("the request contains text that is not Unicode")
	}
	if strings.ContainsRune(s, 0) {
		return errors.New("the request contains a NUL character")
	}
	return nil
}
