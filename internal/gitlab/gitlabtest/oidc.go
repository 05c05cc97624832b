package gitlabtest

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	userID    = 7
	userLogin = "signer"
)

// Claims are the claims of an id token. Claims that are not set have the values
// of a job in a pipeline that was triggered on main.
type Claims struct {
	Project        string // path
	Audience       string
	Ref            string // main
	RefType        string // branch
	RefProtected   bool
	PipelineID     int
	PipelineSource string // trigger
	JobID          int    // made up from the pipeline's
	UserLogin      string
	Environment    string // claimed only if it is set
	SHA            string
	// Expiry is how long the token is valid, 5 minutes if it is 0. A negative
	// value makes an expired token.
	Expiry time.Duration
	// Extra claims replace the others; one that is nil is left out.
	Extra map[string]any
}

// issuer holds the signing key, which is made when it is first needed.
type issuer struct {
	mu          sync.Mutex
	key         *jose.JSONWebKey
	discoveries int
	keyFetches  int
}

// IDToken signs a token as GitLab does for a job: ids and booleans are strings.
func (s *Server) IDToken(c Claims) (string, error) {
	s.oidc.mu.Lock()
	key, err := s.oidc.signingKey()
	s.oidc.mu.Unlock()
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, options)
	if err != nil {
		return "", fmt.Errorf("make signer: %w", err)
	}
	token, err := jwt.Signed(signer).Claims(s.claims(c)).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign id token: %w", err)
	}
	return token, nil
}

func (s *Server) claims(c Claims) map[string]any {
	c.Ref = cmp.Or(c.Ref, "main")
	c.RefType = cmp.Or(c.RefType, "branch")
	c.SHA = cmp.Or(c.SHA, commit(c.Project, c.Ref))
	namespace := path.Dir(c.Project)
	refPath := "refs/heads/" + c.Ref
	if c.RefType == "tag" {
		refPath = "refs/tags/" + c.Ref
	}
	_, host, _ := strings.Cut(s.baseURL, "://")
	now := time.Now()
	claims := map[string]any{
		"iss": s.baseURL,
		"sub": fmt.Sprintf("project_path:%s:ref_type:%s:ref:%s", c.Project, c.RefType, c.Ref),
		"aud": c.Audience,
		"iat": now.Unix(),
		"nbf": now.Add(-5 * time.Second).Unix(),
		"exp": now.Add(cmp.Or(c.Expiry, 5*time.Minute)).Unix(),
		"jti": rand.Text(),

		"namespace_id":          strconv.Itoa(projectID(namespace)),
		"namespace_path":        namespace,
		"project_id":            strconv.Itoa(s.idOf(c.Project)),
		"project_path":          c.Project,
		"project_visibility":    "private",
		"user_id":               strconv.Itoa(userID),
		"user_login":            cmp.Or(c.UserLogin, userLogin),
		"user_email":            userLogin + "@example.com",
		"user_access_level":     "maintainer",
		"pipeline_id":           strconv.Itoa(c.PipelineID),
		"pipeline_source":       cmp.Or(c.PipelineSource, "trigger"),
		"job_id":                strconv.Itoa(cmp.Or(c.JobID, c.PipelineID+1000)),
		"ref":                   c.Ref,
		"ref_type":              c.RefType,
		"ref_path":              refPath,
		"ref_protected":         strconv.FormatBool(c.RefProtected),
		"runner_id":             1,
		"runner_environment":    "gitlab-hosted",
		"sha":                   c.SHA,
		"ci_config_ref_uri":     fmt.Sprintf("%s/%s//.gitlab-ci.yml@%s", host, c.Project, refPath),
		"ci_config_sha":         c.SHA,
		"environment":           c.Environment,
		"environment_protected": "false",
	}
	if c.Environment == "" {
		delete(claims, "environment")
		delete(claims, "environment_protected")
	}
	maps.Copy(claims, c.Extra)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// idOf returns the id of a project, also of one that was not added.
func (s *Server) idOf(project string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.find(project); ok {
		return p.ID
	}
	return projectID(project)
}

// RotateKeys signs with a new key from now on. The old one is no longer
// published.
func (s *Server) RotateKeys() {
	s.oidc.mu.Lock()
	defer s.oidc.mu.Unlock()
	s.oidc.key = nil
}

// DiscoveryRequests counts how often the issuer's configuration was asked for.
func (s *Server) DiscoveryRequests() int {
	s.oidc.mu.Lock()
	defer s.oidc.mu.Unlock()
	return s.oidc.discoveries
}

// KeyRequests counts how often the signing keys were asked for.
func (s *Server) KeyRequests() int {
	s.oidc.mu.Lock()
	defer s.oidc.mu.Unlock()
	return s.oidc.keyFetches
}

func (s *Server) discovery(w http.ResponseWriter, _ *http.Request) {
	s.oidc.mu.Lock()
	s.oidc.discoveries++
	s.oidc.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                s.baseURL,
		"authorization_endpoint":                s.baseURL + "/oauth/authorize",
		"token_endpoint":                        s.baseURL + "/oauth/token",
		"userinfo_endpoint":                     s.baseURL + "/oauth/userinfo",
		"jwks_uri":                              s.baseURL + "/oauth/discovery/keys",
		"response_types_supported":              []string{"code"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
	})
}

func (s *Server) keys(w http.ResponseWriter, _ *http.Request) {
	s.oidc.mu.Lock()
	s.oidc.keyFetches++
	key, err := s.oidc.signingKey()
	s.oidc.mu.Unlock()
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]any{"message": "500 Internal Server Error"})
		return
	}
	writeJSON(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.Public()}})
}

// signingKey returns the key, and makes one if there is none. The caller holds
// the lock.
func (i *issuer) signingKey() (jose.JSONWebKey, error) {
	if i.key == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return jose.JSONWebKey{}, fmt.Errorf("make signing key: %w", err)
		}
		i.key = &jose.JSONWebKey{Key: key, KeyID: rand.Text(), Algorithm: string(jose.RS256), Use: "sig"}
	}
	return *i.key, nil
}

// commit invents the commit that a ref points to.
func commit(project, ref string) string {
	sum := sha1.Sum([]byte(project + "@" + ref))
	return hex.EncodeToString(sum[:])
}
