{{- define "pgrecall.name" -}}
{{- $name := ternary .Release.Name (printf "%s-pgrecall" .Release.Name) (contains "pgrecall" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "pgrecall.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "pgrecall.selector" -}}
app.kubernetes.io/name: pgrecall
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pgrecall.labels" -}}
{{ include "pgrecall.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "pgrecall.cluster" -}}{{ include "pgrecall.name" . }}-db{{- end }}

{{- define "pgrecall.host" -}}
{{- if eq .Values.mode "cnpg" -}}
{{ include "pgrecall.cluster" . }}-rw
{{- else -}}
{{ required "database.host is needed in mode existing" .Values.database.host }}
{{- end -}}
{{- end }}

{{- define "pgrecall.port" -}}{{ ternary 5432 (int .Values.database.port) (eq .Values.mode "cnpg") }}{{- end }}

{{- define "pgrecall.caSecret" -}}
{{- if eq .Values.mode "cnpg" -}}{{ include "pgrecall.cluster" . }}-ca{{- else -}}{{ .Values.database.caSecret }}{{- end -}}
{{- end }}

{{- define "pgrecall.dsnSecret" -}}{{ .Values.dsnSecret | default (printf "%s-dsn" (include "pgrecall.name" .)) }}{{- end }}

{{- define "pgrecall.usersSecret" -}}{{ .Values.pooler.usersSecret | default (printf "%s-pooler" (include "pgrecall.name" .)) }}{{- end }}

{{- define "pgrecall.poolerPort" -}}{{ ternary 5432 (int .Values.pooler.port) (eq .Values.mode "cnpg") }}{{- end }}

{{/* Whether there is a place for backups. */}}
{{- define "pgrecall.hasBackups" -}}
{{- if or .Values.backup.to .Values.backup.claim }}yes{{ end -}}
{{- end }}

{{/* One variable from the Secret of connection strings: list of context, variable, key. */}}
{{- define "pgrecall.dsn" -}}
{{- $ := index . 0 -}}
- name: {{ index . 1 }}
  valueFrom: {secretKeyRef: {name: {{ include "pgrecall.dsnSecret" $ }}, key: {{ index . 2 }}}}
{{- end }}

{{/* What every container of the image shares. */}}
{{- define "pgrecall.container" -}}
image: {{ include "pgrecall.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* What every pod shares. enableServiceLinks: a Service called pgrecall-monitor would otherwise
set PGRECALL_MONITOR_PORT, which is a setting. */}}
{{- define "pgrecall.pod" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int .Values.user }}
  runAsGroup: {{ int .Values.user }}
  fsGroup: {{ int .Values.user }}
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Settings of every pgrecall process; all it writes lies in /tmp. */}}
{{- define "pgrecall.env" -}}
- {name: HOME, value: /tmp}
- {name: PGRECALL_CONFIG_DIR, value: /tmp/config}
- {name: PGRECALL_DATA_DIR, value: /tmp/server}
- {name: PGRECALL_DATABASE, value: {{ .Values.database.name | quote }}}
- {name: PGRECALL_EMBEDDER, value: {{ .Values.embedder | quote }}}
- {name: PGRECALL_LOG_FORMAT, value: json}
{{- end }}

{{- define "pgrecall.backupEnv" -}}
{{- if include "pgrecall.hasBackups" . }}
- {name: PGRECALL_BACKUPS, value: {{ .Values.backup.to | default "/mnt/backups" | quote }}}
{{- with .Values.backup.recipients }}
- {name: PGRECALL_BACKUP_RECIPIENTS, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Volumes of a Job, and where they are mounted. */}}
{{- define "pgrecall.jobMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- if .Values.backup.claim }}
- {name: backups, mountPath: /mnt/backups}
{{- end }}
{{- if include "pgrecall.caSecret" . }}
- {name: ca, mountPath: /mnt/ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "pgrecall.jobVolumes" -}}
- {name: tmp, emptyDir: {sizeLimit: {{ .Values.scratch }}}}
- {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory }}}}
{{- with .Values.backup.claim }}
- {name: backups, persistentVolumeClaim: {claimName: {{ . }}}}
{{- end }}
{{- include "pgrecall.caVolume" . }}
{{- end }}

{{- define "pgrecall.caVolume" -}}
{{- with include "pgrecall.caSecret" . }}
- {name: ca, secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}}
{{- end }}
{{- end }}
