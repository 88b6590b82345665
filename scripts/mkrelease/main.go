// Command mkrelease describes and signs the files built by scripts/release: the SBOM,
// the checksums, the manifest and its signature.
//
//	mkrelease -key FILE -version V -commit HASH -time RFC3339 DIR
//
// The files in DIR are named PROGRAM-OS-ARCH (binaries) or PROGRAM-OS-ARCH.KIND
// (packages). The output does not depend on the time or place of the build.
package main

import (
	"crypto/ed25519"
	"debug/buildinfo"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"weft/overlay/release"
)

func main() {
	keyFile := flag.String("key", "", "file of the release key; created if it does not exist")
	version := flag.String("version", "", "version of the release")
	commit := flag.String("commit", "", "commit of the build")
	when := flag.String("time", "", "time of that commit (RFC 3339)")
	flag.Parse()
	if err := run(*keyFile, *version, *commit, *when, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "mkrelease:", err)
		os.Exit(1)
	}
}

func run(keyFile, version, commit, when, dir string) error {
	at, err := time.Parse(time.RFC3339, when)
	if err != nil {
		return err
	}
	key, made, err := release.LoadKey(keyFile)
	if err != nil {
		return err
	}
	if made {
		fmt.Fprintf(os.Stderr, "created a release key: %s. Keep it, and never put it on the server: nodes pin it when they join.\n", keyFile)
	}
	m := release.Manifest{Schema: release.Schema, Version: version, Commit: commit, Time: at.UTC()}
	if err := writeSBOM(dir, m); err != nil {
		return fmt.Errorf("SBOM: %w", err)
	}
	if m.Files, err = files(dir); err != nil {
		return err
	}
	var sums strings.Builder
	for _, f := range m.Files {
		fmt.Fprintf(&sums, "%s  %s\n", f.SHA256, f.Name)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	for name, content := range map[string][]byte{
		"SHA256SUMS": []byte(sums.String()), release.ManifestName: b, release.SignatureName: release.Sign(key, b),
		release.KeyName: release.EncodeKey(key.Public().(ed25519.PublicKey)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// sbomName is the list of the modules of every program.
const sbomName = "weft.cdx.json"

// noticesName is the file with the terms of those modules.
const noticesName = "NOTICES.txt"

// own are the files that describe the others.
var own = []string{"SHA256SUMS", release.ManifestName, release.SignatureName, release.KeyName}

// files describes every file in dir, in the order of names.
func files(dir string) ([]release.File, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	var out []release.File
	for _, e := range entries {
		if slices.Contains(own, e.Name()) {
			continue
		}
		f, err := describe(e.Name())
		if err != nil {
			return nil, err
		}
		if f.Size, f.SHA256, err = release.Sum(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// describe parses a file's name.
func describe(name string) (release.File, error) {
	f := release.File{Name: name}
	switch name {
	case sbomName:
		f.Program, f.Kind = "weft", "sbom"
		return f, nil
	case noticesName:
		f.Program, f.Kind = "weft", "notices"
		return f, nil
	}
	base := strings.TrimSuffix(name, ".exe")
	base, kind, packaged := strings.Cut(base, ".")
	f.Kind = "binary"
	if packaged {
		f.Kind = kind
	}
	parts := strings.Split(base, "-")
	if len(parts) < 3 {
		return f, fmt.Errorf("%s: want PROGRAM-OS-ARCH", name)
	}
	n := len(parts)
	f.Program, f.OS, f.Arch = strings.Join(parts[:n-2], "-"), parts[n-2], parts[n-1]
	return f, nil
}

// component is a module in CycloneDX 1.5.
type component struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version"`
	PURL    string `json:"purl"`
}

// writeSBOM lists the modules linked into the programs, as the linker recorded them.
func writeSBOM(dir string, m release.Manifest) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	modules := map[string]component{}
	for _, e := range entries {
		info, err := buildinfo.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // a package, or one of our own files
		}
		modules["std"] = component{"library", "std", strings.TrimPrefix(info.GoVersion, "go"), "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go")}
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			modules[d.Path] = component{"library", d.Path, d.Version, "pkg:golang/" + d.Path + "@" + d.Version}
		}
	}
	list := make([]component, 0, len(modules))
	for _, c := range modules {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b component) int { return strings.Compare(a.Name, b.Name) })
	b, err := json.MarshalIndent(map[string]any{
		"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
		"metadata": map[string]any{
			"timestamp": m.Time.Format(time.RFC3339),
			"component": component{"application", "weft", m.Version, "pkg:golang/weft@" + m.Version},
		},
		"components": list,
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, sbomName), append(b, '\n'), 0o644)
}
