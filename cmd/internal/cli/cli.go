// Package cli is what the two programs' command lines share: the version, JSON
// output, errors in words for people, and text from elsewhere made fit for a terminal.
package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X weft/cmd/internal/cli.version=1.2.3".
var version string

// Version is the version of this build, or the commit that it was built from.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+"
			}
		}
	}
	if rev == "" {
		return "dev"
	}
	return "dev-" + rev + dirty
}

// JSONFlag adds --json, which every verb has whose output is not the device's: what it
// found, or what it did, as one object that says in "schema" which form it has. Text for
// people then goes to standard error or nowhere.
func JSONFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON")
}

// PrintJSON prints v indented and ends the line. It is for an object that says its
// schema itself; others are for [PrintObject].
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false) // a terminal is no web page
	return enc.Encode(v)
}

// PrintObject is PrintJSON for a value that is a JSON object, with the name and
// the version of its form as the first field: "device/1".
func PrintObject(w io.Writer, schema string, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	fields := strings.TrimPrefix(b.String(), "{")
	head := fmt.Sprintf("{%q:%q", "schema", schema)
	if !strings.HasPrefix(fields, "}") {
		head += ","
	}
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(head+fields), "", "  "); err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

// Plain makes text from elsewhere safe for a terminal: control characters,
// also those that turn the direction of writing, become '?'.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, s)
}

// Dash is Plain, and "-" for nothing, as in a table.
func Dash(s string) string {
	if s == "" {
		return "-"
	}
	return Plain(s)
}
