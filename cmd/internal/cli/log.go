package cli

import (
	"io"
	"log/slog"
)

// LogHandler writes logs to w as text or json; for another format it is nil.
func LogHandler(w io.Writer, format string, level slog.Level) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.NewTextHandler(w, o)
	case "json":
		return slog.NewJSONHandler(w, o)
	}
	return nil
}
