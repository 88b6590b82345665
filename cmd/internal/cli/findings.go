package cli

import (
	"fmt"
	"io"

	"weft/overlay/report"
)

// PrintFindings is how both doctors say what they found.
func PrintFindings(w io.Writer, found report.Findings) error {
	mark := map[report.Level]string{report.Error: "FAIL", report.Warning: "warn", report.OK: "ok  "}
	for _, f := range found {
		if _, err := fmt.Fprintf(w, "%s  %s: %s\n", mark[f.Level], f.Code, Plain(f.Message)); err != nil {
			return err
		}
		if f.Cure == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "      cure: %s\n", Plain(f.Cure)); err != nil {
			return err
		}
	}
	return nil
}
