"""What hack/release.sh puts together: the index of an image, its bills of materials, and the chart that names it by digest."""
