package console

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/skip"
)

// vendored is a package of npm with files in static/vendor.
type vendored struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	License   string `json:"license"`
	Integrity string `json:"integrity"` // of npm's tarball
	Files     []struct {
		File   string `json:"file"`
		From   string `json:"from"` // its path in the package
		SHA256 string `json:"sha256"`
	} `json:"files"`
}

func vendoredPackages(t *testing.T) []vendored {
	t.Helper()
	text, err := static.ReadFile("static/vendor/vendor.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []vendored
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestVendoredFilesAreListed(t *testing.T) {
	t.Parallel()
	listed := []string{"vendor.json"}
	for _, p := range vendoredPackages(t) {
		if !slices.Contains([]string{"0BSD", "MIT"}, p.License) {
			t.Errorf("%s has the licence %q, which nobody has read", p.Name, p.License)
		}
		licence := false
		for _, f := range p.Files {
			listed = append(listed, f.File)
			licence = licence || strings.HasSuffix(f.File, ".LICENSE")
			text, err := static.ReadFile("static/vendor/" + f.File)
			if err != nil {
				t.Error(err)
				continue
			}
			if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != f.SHA256 {
				t.Errorf("%s is not the file that is listed: its SHA-256 is %x", f.File, sum)
			}
		}
		if !licence {
			t.Errorf("the licence of %s is not beside it", p.Name)
		}
	}
	files, err := fs.ReadDir(static, "static/vendor")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(listed, f.Name()) {
			t.Errorf("%s is not listed in vendor.json", f.Name())
		}
	}
}

// The vendored files are the same as npm's, byte for byte.
func TestVendoredFilesAreNpms(t *testing.T) {
	t.Parallel()
	npm, err := exec.LookPath("npm")
	if err != nil {
		skip.UnlessCI(t, "npm is not installed: the vendored files cannot be compared with npm's")
	}
	for _, p := range vendoredPackages(t) {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), npm, "pack", "--silent", "--pack-destination", dir, p.Name+"@"+p.Version)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				skip.UnlessCI(t, "npm cannot be reached from here: the vendored files cannot be compared with its: "+string(bytes.TrimSpace(out)))
			}
			found, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
			if err != nil || len(found) != 1 {
				t.Fatal("npm pack made", found, err)
			}
			tarball, err := os.ReadFile(found[0])
			if err != nil {
				t.Fatal(err)
			}
			if sum := sha512.Sum512(tarball); "sha512-"+base64.StdEncoding.EncodeToString(sum[:]) != p.Integrity {
				t.Errorf("npm's tarball of %s@%s is not the one that is listed", p.Name, p.Version)
			}
			theirs := unpack(t, tarball)
			for _, f := range p.Files {
				ours, err := static.ReadFile("static/vendor/" + f.File)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(ours, theirs[f.From]) {
					t.Errorf("%s differs from npm's %s", f.File, f.From)
				}
			}
			// If the package states its licence, it is the listed one.
			var manifest struct {
				Version string `json:"version"`
				License string `json:"license"`
			}
			if err := json.Unmarshal(theirs["package.json"], &manifest); err != nil {
				t.Fatal(err)
			}
			if manifest.Version != p.Version || manifest.License != "" && manifest.License != p.License {
				t.Errorf("npm says %+v, and the list %s, %s", manifest, p.Version, p.License)
			}
		})
	}
}

// unpack returns the files of a package, by their paths in it.
func unpack(t *testing.T, tarball []byte) map[string][]byte {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(tarball))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(zipped); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[strings.TrimPrefix(path.Clean(header.Name), "package/")], err = io.ReadAll(io.LimitReader(r, 8<<20)); err != nil {
			t.Fatal(err)
		}
	}
}
