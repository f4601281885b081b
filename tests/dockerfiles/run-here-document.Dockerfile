#: Here-documents: a script for the shell, one with its own interpreter, and one that the shell reads.
#: plain
FROM corpus
ENV X=x
RUN <<EOF
echo $X > /a
echo b >> /a
EOF
RUN <<EOF
#!/bin/cat
text $X
EOF
RUN cat > /c <<'EOF' && echo d > /d
c $X
EOF
